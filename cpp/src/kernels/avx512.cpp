#include "kernels/portable.hpp"
#include "kernels/tables.hpp"
#include "kernels/x86_rows.hpp"
#include "kernels/x86_stretch.hpp"
#include "kernels/x86_unfilter.hpp"

namespace chammi {
namespace {

// The kernels of AVX2 and the portable ones, compiled anew. Measured on an AMD EPYC of family 26, against AVX2: blend
// takes 0.55 of the time on planes of 512 x 512, 0.65 on 160 x 160 and 0.9 on 238 x 374; stretch 0.75, 1.0 and 1.0;
// filters and running sums the same, as each of their steps waits for the one before, whatever its width. A stretch
// of sixteen outputs at a time, with permutations over 32 pixels, was no faster than that of eight.
constexpr Kernels with_blocks() noexcept {
    Kernels kernels = portable_kernels("avx512");
    kernels.unfilter = unfilter_by_blocks;
    kernels.integrate_u8 = integrate_u8_by_blocks;
    kernels.integrate_u16 = integrate_u16_by_blocks;
    kernels.stretch = stretch_by_eights;
    return kernels;
}

}  // namespace

const Kernels avx512_kernels = with_blocks();

}  // namespace chammi
