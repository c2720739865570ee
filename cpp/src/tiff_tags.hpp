#pragma once

#include <cstdint>
#include <limits>

#include "chammi/tiff.hpp"

namespace chammi::tiff {

/// The raw tags of a directory. Scalars hold their first value, or the format's default.
struct Tags {
    Field bits;
    Field sample_format;
    Field strip_offsets;
    Field strip_byte_counts;
    Field tile_offsets;
    Field tile_byte_counts;
    std::uint64_t width = 0;
    std::uint64_t height = 0;
    std::uint64_t depth = 1;
    std::uint64_t compression = 1;
    std::uint64_t photometric = 1;
    std::uint64_t fill_order = 1;
    std::uint64_t samples = 1;
    std::uint64_t rows_per_strip = std::numeric_limits<std::uint32_t>::max();
    std::uint64_t planar = 1;
    std::uint64_t predictor = 1;
    std::uint64_t tile_width = 0;
    std::uint64_t tile_height = 0;
    std::uint32_t images = 1;  // as ImageJ's description counts them
};

/// Finds the entries of the directory at `offset`: they begin at `first`, and each is entry_bytes() long.
Status find_entries(ConstBytes in, Notation notation, std::uint64_t offset, std::uint64_t& first,
                    std::uint64_t& entries) noexcept;

constexpr std::uint64_t entry_bytes(Notation notation) noexcept {
    return notation.big ? 20 : 12;
}

Status read_tags(ConstBytes in, Notation notation, std::uint64_t offset, Tags& tags) noexcept;

/// Makes a page of the tags that stand in the directory at `offset`.
Status interpret(ConstBytes in, ByteOrder order, const Tags& tags, const Limits& limits, std::uint64_t offset,
                 Page& page) noexcept;

}  // namespace chammi::tiff
