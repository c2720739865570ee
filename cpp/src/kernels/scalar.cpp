#include "kernels/portable.hpp"
#include "kernels/tables.hpp"

namespace chammi {

const Kernels scalar_kernels = portable_kernels("scalar");

}  // namespace chammi
