#pragma once

// Plain loops, the specification of every kernel. Included by one source file per instruction set, each
// compiled with its own flags, so that the compiler vectorises them anew; everything has internal linkage, as
// a function shared with another file could be the one that the linker keeps.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "chammi/kernels.hpp"

namespace chammi {
namespace {

inline std::uint8_t paeth(int left, int up, int corner) noexcept {
    const int to_left = up - corner;  // distance of the prediction left + up - corner from left
    const int to_up = left - corner;  // ... from up
    const int to_corner = to_left + to_up;
    const int a = to_left < 0 ? -to_left : to_left;
    const int b = to_up < 0 ? -to_up : to_up;
    const int c = to_corner < 0 ? -to_corner : to_corner;
    int nearest = b <= c ? up : corner;
    nearest = a <= b && a <= c ? left : nearest;
    return static_cast<std::uint8_t>(nearest);
}

template <std::size_t step>
void undo_sub(const std::uint8_t* from, std::uint8_t* out, std::size_t row) noexcept {
    std::memcpy(out, from, step < row ? step : row);
    for (std::size_t x = step; x < row; ++x) {
        out[x] = static_cast<std::uint8_t>(from[x] + out[x - step]);
    }
}

void undo_up(const std::uint8_t* from, const std::uint8_t* above, std::uint8_t* out, std::size_t row) noexcept {
    for (std::size_t x = 0; x < row; ++x) {
        out[x] = static_cast<std::uint8_t>(from[x] + above[x]);
    }
}

template <std::size_t step>
void undo_average(const std::uint8_t* from, const std::uint8_t* above, std::uint8_t* out, std::size_t row) noexcept {
    for (std::size_t x = 0; x < step; ++x) {
        out[x] = static_cast<std::uint8_t>(from[x] + above[x] / 2);
    }
    for (std::size_t x = step; x < row; ++x) {
        out[x] = static_cast<std::uint8_t>(from[x] + (above[x] + out[x - step]) / 2);
    }
}

template <std::size_t step>
void undo_first_average(const std::uint8_t* from, std::uint8_t* out, std::size_t row) noexcept {
    std::memcpy(out, from, step);
    for (std::size_t x = step; x < row; ++x) {
        out[x] = static_cast<std::uint8_t>(from[x] + out[x - step] / 2);
    }
}

template <std::size_t step>
void undo_paeth(const std::uint8_t* from, const std::uint8_t* above, std::uint8_t* out, std::size_t row) noexcept {
    for (std::size_t x = 0; x < step; ++x) {
        out[x] = static_cast<std::uint8_t>(from[x] + above[x]);
    }
    for (std::size_t x = step; x < row; ++x) {
        out[x] = static_cast<std::uint8_t>(from[x] + paeth(out[x - step], above[x], above[x - step]));
    }
}

// Row 0 has zeros above it: Up is then None, and Paeth is Sub.
template <std::size_t step>
bool undo_first_row(unsigned filter, const std::uint8_t* from, std::uint8_t* out, std::size_t row) noexcept {
    switch (filter) {
        case 0:
        case 2:
            std::memcpy(out, from, row);
            return true;
        case 1:
        case 4:
            undo_sub<step>(from, out, row);
            return true;
        case 3:
            undo_first_average<step>(from, out, row);
            return true;
        default:
            return false;
    }
}

template <std::size_t step>
bool undo_row(unsigned filter, const std::uint8_t* from, const std::uint8_t* above, std::uint8_t* out,
              std::size_t row) noexcept {
    switch (filter) {
        case 0:
            std::memcpy(out, from, row);
            return true;
        case 1:
            undo_sub<step>(from, out, row);
            return true;
        case 2:
            undo_up(from, above, out, row);
            return true;
        case 3:
            undo_average<step>(from, above, out, row);
            return true;
        case 4:
            undo_paeth<step>(from, above, out, row);
            return true;
        default:
            return false;
    }
}

template <std::size_t step>
std::uint32_t unfilter_rows(const std::uint8_t* filtered, std::uint8_t* out, std::uint32_t rows,
                            std::size_t row) noexcept {
    for (std::uint32_t y = 0; y < rows; ++y) {
        const std::uint8_t* from = filtered + y * (row + 1);
        std::uint8_t* to = out + y * row;
        const bool known = y == 0 ? undo_first_row<step>(*from, from + 1, to, row)
                                  : undo_row<step>(*from, from + 1, to - row, to, row);
        if (!known) {
            return y;
        }
    }
    return rows;
}

std::uint32_t unfilter(const std::uint8_t* filtered, std::uint8_t* out, std::uint32_t rows, std::size_t row,
                       std::size_t step) noexcept {
    switch (step) {
        case 1:
            return unfilter_rows<1>(filtered, out, rows, row);
        case 2:
            return unfilter_rows<2>(filtered, out, rows, row);
        case 3:
            return unfilter_rows<3>(filtered, out, rows, row);
        case 4:
            return unfilter_rows<4>(filtered, out, rows, row);
        case 6:
            return unfilter_rows<6>(filtered, out, rows, row);
        default:
            return unfilter_rows<8>(filtered, out, rows, row);
    }
}

void integrate_u8(std::uint8_t* row, std::size_t count, std::size_t step) noexcept {
    for (std::size_t x = step; x < count; ++x) {
        row[x] = static_cast<std::uint8_t>(row[x] + row[x - step]);
    }
}

inline std::uint16_t get_u16(const std::uint8_t* from) noexcept {
    std::uint16_t value = 0;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline void put_u16(std::uint8_t* to, std::uint16_t value) noexcept {
    std::memcpy(to, &value, sizeof value);
}

void integrate_u16(std::uint8_t* row, std::size_t count, std::size_t step) noexcept {
    for (std::size_t x = step; x < count; ++x) {
        put_u16(row + 2 * x, static_cast<std::uint16_t>(get_u16(row + 2 * x) + get_u16(row + 2 * (x - step))));
    }
}

void swap_u16(std::uint8_t* values, std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        put_u16(values + 2 * i, __builtin_bswap16(get_u16(values + 2 * i)));
    }
}

// Taps go four at a time, so that the sums are read and written once for four.
template <typename T>
void blend(const T* from, std::size_t stride, const float* weights, std::size_t taps, std::size_t count,
           float* __restrict out) noexcept {
    for (std::size_t k = 0; k < taps; k += 4) {
        const std::size_t some = taps - k < 4 ? taps - k : 4;
        const T* __restrict a = from + k * stride;
        const T* __restrict b = a + (some > 1 ? stride : 0);
        const T* __restrict c = a + (some > 2 ? 2 * stride : 0);
        const T* __restrict d = a + (some > 3 ? 3 * stride : 0);
        const float wa = weights[k];
        const float wb = some > 1 ? weights[k + 1] : 0.0F;
        const float wc = some > 2 ? weights[k + 2] : 0.0F;
        const float wd = some > 3 ? weights[k + 3] : 0.0F;
        if (some <= 2 && k == 0) {
            for (std::size_t x = 0; x < count; ++x) {
                out[x] = wa * static_cast<float>(a[x]) + wb * static_cast<float>(b[x]);
            }
        } else if (k == 0) {
            for (std::size_t x = 0; x < count; ++x) {
                out[x] = wa * static_cast<float>(a[x]) + wb * static_cast<float>(b[x]) + wc * static_cast<float>(c[x]) +
                         wd * static_cast<float>(d[x]);
            }
        } else {
            for (std::size_t x = 0; x < count; ++x) {
                out[x] += wa * static_cast<float>(a[x]) + wb * static_cast<float>(b[x]) +
                          wc * static_cast<float>(c[x]) + wd * static_cast<float>(d[x]);
            }
        }
    }
}

void stretch(const float* __restrict from, const AxisView& axis, float gain, float bias,
             float* __restrict out) noexcept {
    const std::int32_t outputs = axis.outputs;
    const std::int32_t* __restrict start = axis.start;
    for (std::int32_t i = 0; i < outputs; ++i) {
        out[i] = axis.weights[i] * from[start[i]];
    }
    for (std::int32_t k = 1; k < axis.taps; ++k) {
        const float* __restrict weights = axis.weights + static_cast<std::ptrdiff_t>(k) * outputs;
        const float* __restrict shifted = from + k;
        for (std::int32_t i = 0; i < outputs; ++i) {
            out[i] += weights[i] * shifted[start[i]];
        }
    }
    for (std::int32_t i = 0; i < outputs; ++i) {
        out[i] = gain * out[i] + bias;
    }
}

template <typename T>
void scale(const T* __restrict from, std::size_t count, float gain, float bias, float* __restrict out) noexcept {
    for (std::size_t x = 0; x < count; ++x) {
        out[x] = gain * static_cast<float>(from[x]) + bias;
    }
}

template <typename T>
void rescale(const T* __restrict from, std::size_t count, float base, float gain, float bias,
             float* __restrict out) noexcept {
    for (std::size_t x = 0; x < count; ++x) {
        const float value = gain * (static_cast<float>(from[x]) - base) + bias;
        const float above = value > 0.0F ? value : 0.0F;
        out[x] = above < 1.0F ? above : 1.0F;
    }
}

constexpr Kernels portable_kernels(const char* name) noexcept {
    return {name,
            unfilter,
            integrate_u8,
            integrate_u16,
            swap_u16,
            blend<std::uint8_t>,
            blend<std::uint16_t>,
            blend<float>,
            stretch,
            scale<std::uint8_t>,
            scale<std::uint16_t>,
            scale<float>,
            rescale<std::uint8_t>,
            rescale<std::uint16_t>,
            rescale<float>};
}

}  // namespace
}  // namespace chammi
