#pragma once

#include <bit>
#include <cstdint>

#include "chammi/status.hpp"

namespace chammi {

/// Without a way out half-way, which is what makes it fast.
inline bool all_finite(const float* values, std::uint64_t count) noexcept {
    constexpr std::uint32_t exponent = 0x7F800000U;
    std::uint32_t faults = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        faults |= (std::bit_cast<std::uint32_t>(values[i]) & exponent) == exponent ? 1U : 0U;
    }
    return faults == 0;
}

inline Status check_finite(const float* values, std::uint64_t count) noexcept {
    return all_finite(values, count) ? success() : failure(Code::corrupt, "not all of the pixels are finite numbers");
}

}  // namespace chammi
