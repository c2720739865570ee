#pragma once

#include <cstdint>

#include "chammi/bytes.hpp"
#include "chammi/image.hpp"
#include "chammi/status.hpp"
#include "chammi/workspace.hpp"

namespace chammi {

/// Reads the header of page `page` of one encoded image and checks its size against `limits`.
Status probe(ConstBytes in, std::uint32_t page, const Limits& limits, ImageInfo& info) noexcept;

/// Decodes page `page` into `out`, which is made image_bytes(info) long: (height, width, samples), native
/// byte order. `out` is unspecified after a failure. It may be a buffer of `work`, but only `work.image`.
Status decode(ConstBytes in, std::uint32_t page, const Limits& limits, Workspace& work, ImageInfo& info,
              Buffer& out) noexcept;

/// As decode(), but what stands in the file as it is wanted stays there: `pixels` views either `in` or `out`.
Status decode_or_view(ConstBytes in, std::uint32_t page, const Limits& limits, Workspace& work, ImageInfo& info,
                      Buffer& out, ConstBytes& pixels) noexcept;

/// Decodes all pages, one under the other: (pages, height, width). All must have one size, type and sample.
Status decode_stack(ConstBytes in, const Limits& limits, Workspace& work, ImageInfo& info, Buffer& out) noexcept;

/// Channel planes that lie somewhere in memory, with rows of contiguous pixels. Strides count elements.
struct Planes {
    const std::uint8_t* data = nullptr;
    SampleType type = SampleType::u8;
    std::uint32_t channels = 0;
    std::uint32_t height = 0;
    std::uint32_t width = 0;
    std::uint64_t channel_stride = 0;
    std::uint64_t row_stride = 0;
};

/// Decodes one file into planes, which stay in `in` or, until its next use, in `work`. With a `channel_width` the file
/// is one tape (height, channels * channel_width). Without (0), pages are channels if there are several, else samples
/// are.
Status decode_planes(ConstBytes in, std::uint32_t channel_width, const Limits& limits, Workspace& work,
                     Planes& planes) noexcept;

/// Planes of any type as float32, in `work` until its next use.
Status to_float(const Planes& planes, Workspace& work, Planes& floats) noexcept;

/// Writes planes as one contiguous (channels, height, width) array.
void gather_planes(const Planes& planes, std::uint8_t* out) noexcept;

}  // namespace chammi
