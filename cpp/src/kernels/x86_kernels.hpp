#pragma once

// The table of an instruction set that has AVX2, compiled for it by the file that includes this. Everything has
// internal linkage (see portable.hpp).

#include "kernels/portable.hpp"
#include "kernels/tables.hpp"
#include "kernels/x86_rows.hpp"
#include "kernels/x86_stretch.hpp"
#include "kernels/x86_unfilter.hpp"

namespace chammi {
namespace {

constexpr Kernels x86_kernels(const char* name) noexcept {
    Kernels kernels = portable_kernels(name);
    kernels.unfilter = unfilter_by_blocks;
    kernels.integrate_u8 = integrate_u8_by_blocks;
    kernels.integrate_u16 = integrate_u16_by_blocks;
    kernels.stretch = stretch_by_eights;
    return kernels;
}

}  // namespace
}  // namespace chammi
