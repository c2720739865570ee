#pragma once

#include <cstddef>
#include <cstdint>

#include "chammi/bytes.hpp"
#include "chammi/workspace.hpp"

namespace chammi {

enum class Unpacked : std::uint8_t {
    complete,  // the stream ended, or `out` is full and the codec has no end of its own
    overflow,  // the stream holds more than `out` takes
    corrupt,   // broken, or cut off: the caller knows whether the file ended early
    no_memory,
};

/// `written` bytes at the start of `out` are valid, for `complete` only.
struct UnpackResult {
    Unpacked outcome = Unpacked::corrupt;
    std::size_t written = 0;
};

/// A zlib stream, its Adler-32 checked. Bytes that follow it are ignored.
UnpackResult unpack_zlib(ConstBytes in, Bytes out, Workspace& work) noexcept;

/// One or several Zstandard frames, their checksums checked where they have one. What follows them is ignored.
UnpackResult unpack_zstd(ConstBytes in, Bytes out, Workspace& work) noexcept;

/// TIFF's LZW: codes of 9 to 12 bits, most significant bit first, widened one code early.
UnpackResult unpack_lzw(ConstBytes in, Bytes out) noexcept;

/// True for the LZW of TIFF 5 and before, whose codes start at the least significant bit.
bool is_old_lzw(ConstBytes in) noexcept;

UnpackResult unpack_packbits(ConstBytes in, Bytes out) noexcept;

/// CRC-32 as PNG uses it.
std::uint32_t crc32(ConstBytes bytes) noexcept;

enum class InflateLibrary : std::uint8_t { isal, libdeflate };

/// Chooses the library for all further zlib streams of the process; false where it was not built in.
bool use_inflate(InflateLibrary library) noexcept;
InflateLibrary inflate_in_use() noexcept;
bool has_inflate(InflateLibrary library) noexcept;

}  // namespace chammi
