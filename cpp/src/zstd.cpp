#include <zstd.h>
#include <zstd_errors.h>

#include "chammi/unpack.hpp"

namespace chammi {

void FreeCodec::operator()(ZSTD_DCtx_s* state) const noexcept {
    ZSTD_freeDCtx(state);
}

UnpackResult unpack_zstd(ConstBytes in, Bytes out, Workspace& work) noexcept {
    if (!work.zstd) {
        work.zstd.reset(ZSTD_createDCtx());
        if (!work.zstd) {
            return {Unpacked::no_memory, 0};
        }
    }
    // Frame by frame: what follows the last one that is needed is not looked at.
    std::size_t written = 0;
    while (written < out.size() && !in.empty()) {
        const std::size_t frame = ZSTD_findFrameCompressedSize(in.data(), in.size());
        if (ZSTD_isError(frame) != 0U) {
            break;
        }
        const Bytes rest = out.subspan(written);
        const std::size_t result = ZSTD_decompressDCtx(work.zstd.get(), rest.data(), rest.size(), in.data(), frame);
        if (ZSTD_getErrorCode(result) == ZSTD_error_dstSize_tooSmall) {
            return {Unpacked::overflow, written};
        }
        if (ZSTD_isError(result) != 0U) {
            break;
        }
        written += result;
        in = in.subspan(frame);
    }
    return {written != 0 ? Unpacked::complete : Unpacked::corrupt, written};
}

}  // namespace chammi
