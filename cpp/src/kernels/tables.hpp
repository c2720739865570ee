#pragma once

#include "chammi/kernels.hpp"

namespace chammi {

extern const Kernels scalar_kernels;
#ifdef CHAMMI_X86_64
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

}  // namespace chammi
