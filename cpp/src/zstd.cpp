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
    const std::size_t result = ZSTD_decompressDCtx(work.zstd.get(), out.data(), out.size(), in.data(), in.size());
    if (ZSTD_isError(result) == 0U) {
        return {Unpacked::complete, result};
    }
    const bool full = ZSTD_getErrorCode(result) == ZSTD_error_dstSize_tooSmall;
    return {full ? Unpacked::overflow : Unpacked::corrupt, 0};
}

}  // namespace chammi
