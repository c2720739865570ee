#pragma once

#include <array>
#include <cstdint>

#include "chammi/bytes.hpp"
#include "chammi/image.hpp"
#include "chammi/status.hpp"
#include "png_expand.hpp"

namespace chammi::png {

constexpr std::array<std::uint8_t, 8> signature{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::size_t chunk_frame = 12;  // length, type, CRC

constexpr std::uint32_t type_code(const char (&name)[5]) noexcept {  // NOLINT(*-avoid-c-arrays)
    std::uint32_t code = 0;
    for (std::size_t i = 0; i < 4; ++i) {
        code = (code << 8U) | static_cast<std::uint8_t>(name[i]);
    }
    return code;
}
constexpr std::uint32_t ihdr = type_code("IHDR");
constexpr std::uint32_t plte = type_code("PLTE");
constexpr std::uint32_t idat = type_code("IDAT");
constexpr std::uint32_t iend = type_code("IEND");
constexpr std::uint32_t trns = type_code("tRNS");

constexpr bool is_critical(std::uint32_t type) noexcept {
    return (type & 0x20000000U) == 0;
}

/// One chunk of the file, its frame taken off.
struct Chunk {
    std::uint32_t type = 0;
    std::uint64_t offset = 0;  // of the chunk's length field
    ConstBytes data;
};

inline std::uint64_t end_of(const Chunk& chunk) noexcept {
    return chunk.offset + chunk_frame + chunk.data.size();
}

/// Reads the chunk at `offset`. The checksum of ancillary chunks is left to those who use them.
Status read_chunk(ConstBytes in, std::uint64_t offset, Chunk& chunk) noexcept;

/// What stands before the pixels.
struct Header {
    ImageInfo info;
    Expansion expansion;
    unsigned colour = 0;
};

Status read_header(ConstBytes in, const Limits& limits, Header& header) noexcept;

}  // namespace chammi::png
