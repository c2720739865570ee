#include "chammi/buffer.hpp"

#include <limits>

namespace chammi {

bool Buffer::resize(std::uint64_t size) noexcept {
    constexpr std::uint64_t most = std::numeric_limits<std::ptrdiff_t>::max() - slack - alignment;
    if (size > most) {
        return false;
    }
    const auto wanted = static_cast<std::size_t>(size);
    if (data_ == nullptr || wanted > capacity_) {
        // aligned_alloc takes multiples of the alignment only.
        const std::size_t rounded = (wanted + slack + alignment - 1) / alignment * alignment;
        std::free(data_);
        data_ = static_cast<std::uint8_t*>(std::aligned_alloc(alignment, rounded));
        capacity_ = data_ == nullptr ? 0 : rounded - slack;
    }
    size_ = data_ == nullptr ? 0 : wanted;
    return data_ != nullptr;
}

void Buffer::trim(std::size_t most) noexcept {
    if (capacity_ > most) {
        std::free(data_);
        data_ = nullptr;
        size_ = 0;
        capacity_ = 0;
    }
}

}  // namespace chammi
