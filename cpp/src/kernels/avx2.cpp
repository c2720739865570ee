#include "kernels/x86_kernels.hpp"

namespace chammi {

const Kernels avx2_kernels = x86_kernels("avx2");

}  // namespace chammi
