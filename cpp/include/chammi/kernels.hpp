#pragma once

#include <cstddef>
#include <cstdint>

namespace chammi {

/// How one output axis of a resize is made: output i = sum over k < taps of weight(i, k) * input[start[i] +
/// k].
struct AxisView {
    const std::int32_t* start = nullptr;  // outputs
    const float* weights = nullptr;       // tap by tap: weights[k * outputs + i]
    std::int32_t outputs = 0;
    std::int32_t taps = 0;
};

/// The inner loops, one table per instruction set. All tables compute the same: exactly for integers, within
/// rounding for floats. Plain pointers, so that a table is chosen once and called outside of loops.
struct Kernels {
    const char* name;

    /// Undoes PNG's row filters: `rows` rows of one filter byte and `row` bytes each, into `out` without the
    /// filter bytes; `step` bytes make a pixel. Returns the first row with an unknown filter, or `rows`. Up to 32
    /// bytes behind both are read, and have no influence.
    std::uint32_t (*unfilter)(const std::uint8_t* filtered, std::uint8_t* out, std::uint32_t rows, std::size_t row,
                              std::size_t step) noexcept;

    /// Undoes TIFF's horizontal differences within one row of `count` values, `step` samples interleaved.
    void (*integrate_u8)(std::uint8_t* row, std::size_t count, std::size_t step) noexcept;
    void (*integrate_u16)(std::uint8_t* row, std::size_t count, std::size_t step) noexcept;

    /// Swaps the bytes of `count` 16-bit values; no alignment needed.
    void (*swap_u16)(std::uint8_t* values, std::size_t count) noexcept;

    /// One row between the passes: out[x] = sum over k of weights[k] * from[k * stride + x], x < count.
    void (*blend_u8)(const std::uint8_t* from, std::size_t stride, const float* weights, std::size_t taps,
                     std::size_t count, float* out) noexcept;
    void (*blend_u16)(const std::uint16_t* from, std::size_t stride, const float* weights, std::size_t taps,
                      std::size_t count, float* out) noexcept;
    void (*blend_f32)(const float* from, std::size_t stride, const float* weights, std::size_t taps, std::size_t count,
                      float* out) noexcept;

    /// The horizontal pass: out[i] = gain * (sum over k of weight(i, k) * from[start[i] + k]) + bias. Starts never
    /// fall, or never rise. Up to 7 values behind the last one that is used are read, and have no influence.
    void (*stretch)(const float* from, const AxisView& axis, float gain, float bias, float* out) noexcept;

    /// out[x] = gain * from[x] + bias.
    void (*scale_u8)(const std::uint8_t* from, std::size_t count, float gain, float bias, float* out) noexcept;
    void (*scale_u16)(const std::uint16_t* from, std::size_t count, float gain, float bias, float* out) noexcept;
    void (*scale_f32)(const float* from, std::size_t count, float gain, float bias, float* out) noexcept;

    /// out[x] = gain * (from[x] - base) + bias, but at least 0 and at most 1.
    void (*rescale_u8)(const std::uint8_t* from, std::size_t count, float base, float gain, float bias,
                       float* out) noexcept;
    void (*rescale_u16)(const std::uint16_t* from, std::size_t count, float base, float gain, float bias,
                        float* out) noexcept;
    void (*rescale_f32)(const float* from, std::size_t count, float base, float gain, float bias, float* out) noexcept;
};

/// The table in use: the best that the processor has, unless another was chosen.
const Kernels& kernels() noexcept;

enum class IsaChoice : std::uint8_t { chosen, unknown, absent };

/// Uses the table of that name ("scalar", "avx2", "avx512") for the rest of the process.
IsaChoice use_isa(const char* name) noexcept;

}  // namespace chammi
