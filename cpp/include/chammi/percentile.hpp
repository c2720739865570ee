#pragma once

#include <cstdint>

#include "chammi/buffer.hpp"

namespace chammi {

/// Two values of a plane: what becomes 0, and what becomes 1.
struct Bounds {
    double low = 0;
    double high = 0;
};

/// Two percentiles from 0 to 100, as NumPy's percentile() has them by default (between two samples where the rank falls
/// between them), exactly, in double precision. At least one value, fewer than 2^32, none of them not a number.
/// `counts` is memory to work in. False where memory is short.
[[nodiscard]] bool find_percentiles(const std::uint8_t* values, std::uint64_t count, const Bounds& percentiles,
                                    Buffer& counts, Bounds& found) noexcept;
[[nodiscard]] bool find_percentiles(const std::uint16_t* values, std::uint64_t count, const Bounds& percentiles,
                                    Buffer& counts, Bounds& found) noexcept;
[[nodiscard]] bool find_percentiles(const float* values, std::uint64_t count, const Bounds& percentiles, Buffer& counts,
                                    Bounds& found) noexcept;

}  // namespace chammi
