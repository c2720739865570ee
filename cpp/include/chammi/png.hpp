#pragma once

#include <cstdint>

#include "chammi/bytes.hpp"
#include "chammi/image.hpp"
#include "chammi/status.hpp"
#include "chammi/workspace.hpp"

namespace chammi::png {

bool has_signature(ConstBytes in) noexcept;

/// Reads and checks what stands before the pixels.
Status probe(ConstBytes in, const Limits& limits, ImageInfo& info) noexcept;

/// Makes `out` image_bytes(info) long and fills it with (height, width, samples) in native byte order. The checksums
/// of all critical chunks and of the compressed stream are verified. `out` is none of the buffers that decoding uses.
Status decode(ConstBytes in, const Limits& limits, Workspace& work, ImageInfo& info, Buffer& out) noexcept;

}  // namespace chammi::png
