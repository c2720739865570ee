#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace chammi {

/// How much memory is worth keeping: that of the largest of the last needs, with room to spare. Needs that are much
/// alike, or take turns, find what they used before; what a single large one took is given back some needs later.
class RecentPeak {
 public:
    void note(std::uint64_t bytes) noexcept {
        needs_[next_] = bytes;
        next_ = (next_ + 1) % needs_.size();
    }

    /// Bytes beyond which a buffer is too large, where one need takes buffers of up to `times` its bytes.
    [[nodiscard]] std::size_t worth(std::uint64_t times) const noexcept {
        constexpr std::uint64_t little = std::uint64_t{16} << 20U;  // not worth giving back
        return std::max(little, *std::ranges::max_element(needs_) * times);
    }

 private:
    std::array<std::uint64_t, 16> needs_{};
    std::size_t next_ = 0;
};

}  // namespace chammi
