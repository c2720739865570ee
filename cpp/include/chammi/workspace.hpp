#pragma once

#include <memory>

#include "chammi/buffer.hpp"

struct libdeflate_decompressor;
struct inflate_state;
struct ZSTD_DCtx_s;

namespace chammi {

/// Frees a codec's state; one overload per library, defined beside its use.
struct FreeCodec {
    void operator()(libdeflate_decompressor* state) const noexcept;
    void operator()(inflate_state* state) const noexcept;
    void operator()(ZSTD_DCtx_s* state) const noexcept;
};

template <typename State>
using Codec = std::unique_ptr<State, FreeCodec>;

/// What one thread keeps from image to image. Codec states are made on first use.
struct Workspace {
    Buffer file;      // the encoded file
    Buffer packed;    // a compressed stream put together from pieces
    Buffer unpacked;  // a decompressed stream before filters are undone
    Buffer image;     // a decoded image
    Buffer planar;    // planes taken apart from, or to be put into, interleaved samples
    Buffer floats;    // planes of rarer types as float32
    Buffer masked;    // one float plane times the mask
    Buffer rows;      // float rows between the two passes of a resize
    Buffer weights_y;
    Buffer weights_x;
    Codec<libdeflate_decompressor> libdeflate;
    Codec<inflate_state> isal;
    Codec<ZSTD_DCtx_s> zstd;

    /// Gives back what an unusually large image needed: buffers of more than `most` bytes.
    void trim(std::size_t most = std::size_t{16} << 20U) noexcept {
        for (Buffer* buffer :
             {&file, &packed, &unpacked, &image, &planar, &floats, &masked, &rows, &weights_y, &weights_x}) {
            buffer->trim(most);
        }
    }
};

}  // namespace chammi
