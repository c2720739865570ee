#pragma once

// What every harness of a file format does with its input: decode it in all ways there are, and stop where two of
// them disagree.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "chammi/decode.hpp"
#include "chammi/kernels.hpp"
#include "chammi/unpack.hpp"

namespace chammi::fuzz {

// Images are kept small, so that many are tried.
constexpr Limits limits{std::uint64_t{1} << 16U};

inline void require(bool holds) noexcept {
    if (!holds) {
        std::abort();
    }
}

struct Decoded {
    Status status;
    ImageInfo info;
    Buffer pixels;
};

/// Decodes page 0 into memory that was filled with `poison`, which shows where bytes are left as they were.
inline void decode_over(ConstBytes in, std::uint8_t poison, Workspace& work, Decoded& decoded) {
    const Status probed = probe(in, 0, limits, decoded.info);
    if (probed.ok()) {
        require(decoded.pixels.resize(image_bytes(decoded.info)));
        std::fill_n(decoded.pixels.data(), decoded.pixels.size(), poison);
    }
    decoded.status = decode(in, 0, limits, work, decoded.info, decoded.pixels);
    require(!decoded.status.ok() || decoded.pixels.size() == image_bytes(decoded.info));
}

inline void require_same(const Decoded& a, const Decoded& b) noexcept {
    require(a.status.code == b.status.code);
    if (a.status.ok()) {
        require(a.info.height == b.info.height && a.info.width == b.info.width && a.info.samples == b.info.samples);
        require(a.pixels.size() == b.pixels.size());
        require(std::memcmp(a.pixels.data(), b.pixels.data(), a.pixels.size()) == 0);
    }
}

/// Decodes with the kernels of every instruction set, and in all other ways that the core offers.
inline void decode_in_every_way(ConstBytes in) {
    static Workspace work;
    static Decoded plain;
    static Decoded other;
    require(use_isa("scalar") == IsaChoice::chosen);
    decode_over(in, 0x00, work, plain);
    for (const char* isa : std::array{"avx2", "avx512"}) {
        if (use_isa(isa) == IsaChoice::chosen) {
            decode_over(in, 0xFF, work, other);
            require_same(plain, other);
        }
    }
    ConstBytes viewed;
    other.status = decode_or_view(in, 0, limits, work, other.info, other.pixels, viewed);
    require(other.status.code == plain.status.code);
    require(!plain.status.ok() || std::ranges::equal(viewed, std::as_const(plain.pixels).bytes()));
    Planes planes;
    static_cast<void>(decode_planes(in, 0, limits, work, planes));
    static_cast<void>(decode_planes(in, 8, limits, work, planes));
    static_cast<void>(decode_stack(in, limits, work, other.info, other.pixels));
    work.trim();
}

}  // namespace chammi::fuzz
