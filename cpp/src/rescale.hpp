#pragma once

#include <cstdint>

#include "chammi/kernels.hpp"
#include "chammi/percentile.hpp"

namespace chammi {

/// value = clip(gain * (sample - base) + bias, 0, 1), which sends `low` to 0 and `high` to 1, accurately even where the
/// samples are large and lie close together; 0 for all where `high` is not above `low`.
struct Rescale {
    float base = 0;
    float gain = 0;
    float bias = 0;

    explicit Rescale(const Bounds& bounds) noexcept {
        if (bounds.high > bounds.low) {
            const double scale = 1.0 / (bounds.high - bounds.low);
            base = static_cast<float>(bounds.low);
            gain = static_cast<float>(scale);
            bias = static_cast<float>((static_cast<double>(base) - bounds.low) * scale);
        }
    }
};

inline void rescale(const std::uint8_t* from, std::uint64_t count, const Rescale& how, float* out) noexcept {
    kernels().rescale_u8(from, count, how.base, how.gain, how.bias, out);
}
inline void rescale(const std::uint16_t* from, std::uint64_t count, const Rescale& how, float* out) noexcept {
    kernels().rescale_u16(from, count, how.base, how.gain, how.bias, out);
}
inline void rescale(const float* from, std::uint64_t count, const Rescale& how, float* out) noexcept {
    kernels().rescale_f32(from, count, how.base, how.gain, how.bias, out);
}

}  // namespace chammi
