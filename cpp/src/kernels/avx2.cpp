#include "kernels/portable.hpp"
#include "kernels/tables.hpp"
#include "kernels/x86_rows.hpp"
#include "kernels/x86_stretch.hpp"
#include "kernels/x86_unfilter.hpp"

namespace chammi {
namespace {

constexpr Kernels with_blocks() noexcept {
    Kernels kernels = portable_kernels("avx2");
    kernels.unfilter = unfilter_by_blocks;
    kernels.integrate_u8 = integrate_u8_by_blocks;
    kernels.integrate_u16 = integrate_u16_by_blocks;
    kernels.stretch = stretch_by_eights;
    return kernels;
}

}  // namespace

const Kernels avx2_kernels = with_blocks();

}  // namespace chammi
