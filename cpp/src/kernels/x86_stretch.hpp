#pragma once

// The horizontal pass of a resize, eight outputs at a time. Everything has internal linkage (see portable.hpp).
//
// The inputs of neighbouring outputs lie close together. Where those of eight outputs span less than eight pixels
// (growing), or those of either four do (shrinking to less than half), a tap loads the stretch as it is and permutes
// it; only beyond does it gather. Mirrored outputs take their inputs from right to left: the first of a stretch may be
// its last output's.

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "chammi/kernels.hpp"

namespace chammi {
namespace {

constexpr std::int32_t wide = 8;

inline __m256i load_starts(const std::int32_t* start) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start));
}

struct Near {
    std::int32_t base;
    __m256i index;

    explicit Near(const std::int32_t* start) noexcept
        : base(std::min(start[0], start[wide - 1])),
          index(_mm256_sub_epi32(load_starts(start), _mm256_set1_epi32(base))) {}

    [[nodiscard]] __m256 take(const float* from) const noexcept {
        return _mm256_permutevar8x32_ps(_mm256_loadu_ps(from + base), index);
    }
};

struct Halves {
    std::int32_t low;
    std::int32_t high;
    __m256i index;

    explicit Halves(const std::int32_t* start) noexcept
        : low(std::min(start[0], start[wide / 2 - 1])),
          high(std::min(start[wide / 2], start[wide - 1])),
          index(_mm256_sub_epi32(load_starts(start), _mm256_setr_epi32(low, low, low, low, high, high, high, high))) {}

    [[nodiscard]] __m256 take(const float* from) const noexcept {
        const __m256 first = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from + low), index);
        const __m256 second = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from + high), index);
        return _mm256_blend_ps(first, second, 0xF0);
    }
};

struct Far {
    __m256i index;

    explicit Far(const std::int32_t* start) noexcept : index(load_starts(start)) {}

    [[nodiscard]] __m256 take(const float* from) const noexcept { return _mm256_i32gather_ps(from, index, 4); }
};

// Reads up to 7 values behind the last pixel, which no output takes.
template <typename Reach>
__m256 sum_taps(const float* from, const AxisView& axis, std::int32_t i) noexcept {
    const Reach reach{axis.start + i};
    const float* weights = axis.weights + i;
    __m256 sum = _mm256_mul_ps(_mm256_loadu_ps(weights), reach.take(from));
    for (std::int32_t k = 1; k < axis.taps; ++k) {
        weights += axis.outputs;
        sum = _mm256_fmadd_ps(_mm256_loadu_ps(weights), reach.take(from + k), sum);
    }
    return sum;
}

void stretch_by_eights(const float* from, const AxisView& axis, float gain, float bias, float* out) noexcept {
    const __m256 gains = _mm256_set1_ps(gain);
    const __m256 biases = _mm256_set1_ps(bias);
    std::int32_t i = 0;
    for (; i + wide <= axis.outputs; i += wide) {
        const std::int32_t* start = axis.start + i;
        __m256 sum;
        if (std::abs(start[7] - start[0]) < wide) {
            sum = sum_taps<Near>(from, axis, i);
        } else if (std::abs(start[3] - start[0]) < wide && std::abs(start[7] - start[4]) < wide) {
            sum = sum_taps<Halves>(from, axis, i);
        } else {
            sum = sum_taps<Far>(from, axis, i);
        }
        _mm256_storeu_ps(out + i, _mm256_fmadd_ps(gains, sum, biases));
    }
    for (; i < axis.outputs; ++i) {
        float sum = 0;
        for (std::int32_t k = 0; k < axis.taps; ++k) {
            sum += axis.weights[static_cast<std::ptrdiff_t>(k) * axis.outputs + i] * from[axis.start[i] + k];
        }
        out[i] = gain * sum + bias;
    }
}

}  // namespace
}  // namespace chammi
