#pragma once

// Running sums along a row, 16 bytes at a time, for PNG's Sub filter and TIFF's horizontal differences.
// Everything has internal linkage (see portable.hpp).

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace chammi {
namespace {

inline __m128i load16(const std::uint8_t* from) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

inline void store16(std::uint8_t* to, __m128i value) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value);
}

// Each byte becomes the sum of itself and all before it: four doublings, then the sum of the previous block.
// Only the last addition waits for the previous block.
void sum_bytes(const std::uint8_t* from, std::uint8_t* out, std::size_t count) noexcept {
    const __m128i last = _mm_set1_epi8(15);
    __m128i carry = _mm_setzero_si128();
    std::size_t x = 0;
    for (; x + 16 <= count; x += 16) {
        __m128i sums = load16(from + x);
        sums = _mm_add_epi8(sums, _mm_slli_si128(sums, 1));
        sums = _mm_add_epi8(sums, _mm_slli_si128(sums, 2));
        sums = _mm_add_epi8(sums, _mm_slli_si128(sums, 4));
        sums = _mm_add_epi8(sums, _mm_slli_si128(sums, 8));
        const __m128i total = _mm_add_epi8(sums, carry);
        carry = _mm_add_epi8(_mm_shuffle_epi8(sums, last), carry);
        store16(out + x, total);
    }
    std::uint8_t sum = x == 0 ? std::uint8_t{0} : out[x - 1];
    for (; x < count; ++x) {
        sum = static_cast<std::uint8_t>(sum + from[x]);
        out[x] = sum;
    }
}

void sum_words(std::uint8_t* row, std::size_t count) noexcept {
    const __m128i last = _mm_set1_epi16(0x0F0E);
    __m128i carry = _mm_setzero_si128();
    std::size_t x = 0;
    for (; x + 8 <= count; x += 8) {
        __m128i sums = load16(row + 2 * x);
        sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 2));
        sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 4));
        sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 8));
        const __m128i total = _mm_add_epi16(sums, carry);
        carry = _mm_add_epi16(_mm_shuffle_epi8(sums, last), carry);
        store16(row + 2 * x, total);
    }
    std::uint16_t sum = x == 0 ? std::uint16_t{0} : get_u16(row + 2 * (x - 1));
    for (; x < count; ++x) {
        sum = static_cast<std::uint16_t>(sum + get_u16(row + 2 * x));
        put_u16(row + 2 * x, sum);
    }
}

void integrate_u8_by_blocks(std::uint8_t* row, std::size_t count, std::size_t step) noexcept {
    if (step == 1) {
        sum_bytes(row, row, count);
    } else {
        integrate_u8(row, count, step);
    }
}

void integrate_u16_by_blocks(std::uint8_t* row, std::size_t count, std::size_t step) noexcept {
    if (step == 1) {
        sum_words(row, count);
    } else {
        integrate_u16(row, count, step);
    }
}

}  // namespace
}  // namespace chammi
