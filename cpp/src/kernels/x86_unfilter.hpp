#pragma once

// PNG's row filters for one byte per pixel, sixteen rows at a time. Everything has internal linkage (see
// portable.hpp).
//
// A Paeth pixel needs its left, upper and upper left neighbours, so neither a row nor a column can be
// computed at once, but a diagonal can: lane r of a vector holds row r, one pixel behind lane r - 1. At each
// step, the left neighbours are the vector of the step before, the upper ones are that vector moved up by a
// lane, and the upper left ones are the upper ones of the step before. Sixteen steps at a time, pixels are
// turned from rows into such vectors and back by a 16 x 16 transposition.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace chammi {
namespace {

constexpr std::size_t lanes = 16;

// A plain array: functions of std::array have linkage (see portable.hpp).
struct Block {
    __m128i row[lanes];  // NOLINT(*-avoid-c-arrays)
};

// Interleaving the two halves of the vectors four times over transposes their bytes.
Block transpose(const Block& rows) noexcept {
    Block from = rows;
    for (int round = 0; round < 4; ++round) {
        Block to;
        for (std::size_t i = 0; i < lanes / 2; ++i) {
            to.row[2 * i] = _mm_unpacklo_epi8(from.row[i], from.row[i + lanes / 2]);
            to.row[2 * i + 1] = _mm_unpackhi_epi8(from.row[i], from.row[i + lanes / 2]);
        }
        from = to;
    }
    return from;
}

// Sixteen rows of a filtered image, below a row that is finished.
struct Rows {
    const std::uint8_t* filtered;  // of lane 0, behind its filter byte
    std::uint8_t* out;             // of lane 0
    std::size_t row;               // bytes
};

// Which neighbours take part in each lane: all three make Paeth; the left one alone Sub, the upper one alone
// Up.
struct Filters {
    __m128i left = _mm_setzero_si128();
    __m128i up = _mm_setzero_si128();
    __m128i corner = _mm_setzero_si128();
    __m128i average = _mm_setzero_si128();
    bool averages = false;
};

Filters filters_of(const Rows& rows) noexcept {
    std::uint8_t is[5][lanes] = {};  // NOLINT(*-avoid-c-arrays)
    for (std::size_t lane = 0; lane < lanes; ++lane) {
        is[*(rows.filtered + lane * (rows.row + 1) - 1)][lane] = 0xFF;
    }
    const __m128i sub = load16(is[1]);
    const __m128i up = load16(is[2]);
    const __m128i paeth = load16(is[4]);
    Filters filters{_mm_or_si128(sub, paeth), _mm_or_si128(up, paeth), paeth, load16(is[3]), false};
    filters.averages = _mm_movemask_epi8(filters.average) != 0;
    return filters;
}

// The Paeth predictor: of left and up, the one farther from the corner if it is more than twice as far as the
// other, else the corner itself; and the nearer extreme where the corner lies outside. Saturation makes both
// one case.
inline __m128i predict(__m128i left, __m128i up, __m128i corner) noexcept {
    const __m128i zero = _mm_setzero_si128();
    const __m128i low = _mm_min_epu8(left, up);
    const __m128i high = _mm_max_epu8(left, up);
    const __m128i above = _mm_subs_epu8(high, corner);
    const __m128i below = _mm_subs_epu8(corner, low);
    const __m128i take_low = _mm_cmpeq_epi8(_mm_subs_epu8(_mm_adds_epu8(above, above), below), zero);
    const __m128i take_high = _mm_cmpeq_epi8(_mm_subs_epu8(_mm_adds_epu8(below, below), above), zero);
    return _mm_blendv_epi8(_mm_blendv_epi8(corner, low, take_low), high, take_high);
}

struct State {
    __m128i left = _mm_setzero_si128();
    __m128i corner = _mm_setzero_si128();
};

template <std::size_t step, bool averages, bool starting>
inline void advance(Block& pixels, __m128i above, const Filters& filters, State& state) noexcept {
    const __m128i up = _mm_alignr_epi8(state.left, _mm_slli_si128(above, 15 - step), 15);
    // NOLINTNEXTLINE(misc-const-correctness) - changed where `averages`
    __m128i predicted = predict(_mm_and_si128(state.left, filters.left), _mm_and_si128(up, filters.up),
                                _mm_and_si128(state.corner, filters.corner));
    if constexpr (averages) {
        const __m128i odd = _mm_and_si128(_mm_xor_si128(state.left, up), _mm_set1_epi8(1));
        const __m128i half = _mm_sub_epi8(_mm_avg_epu8(state.left, up), odd);
        predicted = _mm_blendv_epi8(predicted, half, filters.average);
    }
    // NOLINTNEXTLINE(misc-const-correctness) - changed where `starting`
    __m128i pixel = _mm_add_epi8(pixels.row[step], predicted);
    if constexpr (starting && step + 1 < lanes) {
        // Lanes beyond this one have not reached their row's first pixel: what is left of it counts as 0.
        pixel = _mm_srli_si128(_mm_slli_si128(pixel, 15 - step), 15 - step);
    }
    pixels.row[step] = pixel;
    state.left = pixel;
    state.corner = up;
}

template <bool averages, bool starting, std::size_t... steps>
inline void advance_all(Block& pixels, __m128i above, const Filters& filters, State& state,
                        std::index_sequence<steps...> /*all*/) noexcept {
    (advance<steps, averages, starting>(pixels, above, filters, state), ...);
}

Block load_diagonal(const Rows& rows, std::size_t x) noexcept {
    Block block;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
        block.row[lane] = load16(rows.filtered + lane * (rows.row + 1) + x - lane);
    }
    return transpose(block);
}

// Bytes in front of a row land at the end of the row above, which is written later; none may go beyond a
// row's end.
void store_diagonal(const Rows& rows, std::size_t x, const Block& pixels) noexcept {
    const Block block = transpose(pixels);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
        std::uint8_t* to = rows.out + lane * rows.row + x - lane;
        if (x - lane + lanes <= rows.row || x < lane) {
            store16(to, block.row[lane]);
        } else if (x - lane < rows.row) {
            std::uint8_t bytes[lanes];  // NOLINT(*-avoid-c-arrays)
            store16(bytes, block.row[lane]);
            std::memcpy(to, bytes, rows.row - (x - lane));
        }
    }
}

template <bool averages>
void undo_rows(const Rows& rows, const Filters& filters) noexcept {
    constexpr auto all = std::make_index_sequence<lanes>{};
    const std::uint8_t* above = rows.out - rows.row;
    State state;
    Block pixels = load_diagonal(rows, 0);
    advance_all<averages, true>(pixels, load16(above), filters, state, all);
    store_diagonal(rows, 0, pixels);
    for (std::size_t x = lanes; x < rows.row + lanes - 1; x += lanes) {
        pixels = load_diagonal(rows, x);
        advance_all<averages, false>(pixels, load16(above + x), filters, state, all);
        store_diagonal(rows, x, pixels);
    }
}

void undo_sixteen(const Rows& rows) noexcept {
    const Filters filters = filters_of(rows);
    if (filters.averages) {
        undo_rows<true>(rows, filters);
    } else {
        undo_rows<false>(rows, filters);
    }
}

// Whether sixteen rows are worth it: single rows of None, Sub and Up are quicker on their own.
bool worth_sixteen(const std::uint8_t* filtered, std::size_t row) noexcept {
    std::size_t slow = 0;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
        const std::uint8_t filter = filtered[lane * (row + 1)];
        if (filter > 4) {
            return false;
        }
        slow += filter > 2 ? 1 : 0;
    }
    return slow >= 2;
}

bool undo_single(const std::uint8_t* filtered, std::uint8_t* out, std::uint32_t y, std::size_t row) noexcept {
    const unsigned filter = *filtered;
    if (filter == 1 || (y == 0 && filter == 4)) {
        sum_bytes(filtered + 1, out, row);
        return true;
    }
    return y == 0 ? undo_first_row<1>(filter, filtered + 1, out, row)
                  : undo_row<1>(filter, filtered + 1, out - row, out, row);
}

std::uint32_t unfilter_bytes(const std::uint8_t* filtered, std::uint8_t* out, std::uint32_t rows,
                             std::size_t row) noexcept {
    constexpr std::size_t narrowest = 3 * lanes;  // the overhang of a diagonal must not reach what is finished
    std::uint32_t y = 0;
    while (y < rows) {
        const std::uint8_t* from = filtered + y * (row + 1);
        // The last rows of an image are done once more with the ones above them, to make sixteen.
        const std::uint32_t first = rows - y >= lanes || rows < lanes ? y : rows - static_cast<std::uint32_t>(lanes);
        const bool fits = y != 0 && first != 0 && rows - first >= lanes && row >= narrowest;
        if (fits && *from > 2 && worth_sixteen(filtered + first * (row + 1), row)) {
            undo_sixteen({filtered + first * (row + 1) + 1, out + first * row, row});
            y = first + lanes;
            continue;
        }
        if (!undo_single(from, out + y * row, y, row)) {
            return y;
        }
        ++y;
    }
    return rows;
}

std::uint32_t unfilter_by_blocks(const std::uint8_t* filtered, std::uint8_t* out, std::uint32_t rows, std::size_t row,
                                 std::size_t step) noexcept {
    return step == 1 ? unfilter_bytes(filtered, out, rows, row) : unfilter(filtered, out, rows, row, step);
}

}  // namespace
}  // namespace chammi
