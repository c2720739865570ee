#include "kernels/portable.inl"
#include "kernels/tables.hpp"

namespace chammi {

const Kernels avx2_kernels = portable_kernels("avx2");

}  // namespace chammi
