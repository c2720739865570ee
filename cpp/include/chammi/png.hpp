#pragma once

#include <cstdint>

#include "chammi/bytes.hpp"
#include "chammi/image.hpp"
#include "chammi/status.hpp"
#include "chammi/workspace.hpp"

namespace chammi::png {

bool has_signature(ConstBytes in) noexcept;

/// Reads and checks the IHDR chunk.
Status probe(ConstBytes in, const Limits& limits, ImageInfo& info) noexcept;

/// Fills `out`, image_bytes(info) long, with (height, width, samples) in native byte order. The checksums of
/// all critical chunks and of the compressed stream are verified.
Status decode(ConstBytes in, const ImageInfo& info, Workspace& work, Bytes out) noexcept;

}  // namespace chammi::png
