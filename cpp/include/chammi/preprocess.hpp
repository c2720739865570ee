#pragma once

#include <cstdint>
#include <span>

#include "chammi/decode.hpp"
#include "chammi/status.hpp"
#include "chammi/workspace.hpp"

namespace chammi {

enum class Mask : std::uint8_t { keep, drop, apply };

enum class Resize : std::uint8_t {
    none,     // images are only cropped or padded
    shorter,  // the shorter side becomes the size, the longer one in proportion
    both,     // each side becomes the size
};

/// A stretch of an image's planes, in pixels; it may be asked for where no image is.
struct Window {
    std::int64_t top = 0;
    std::int64_t left = 0;
    std::int64_t height = 0;
    std::int64_t width = 0;
};

/// From planes to network input: scale, resize, crop, normalise.
struct Preprocess {
    std::uint32_t size = 224;  // side of the square output; 0: images keep their height and width
    Resize resize = Resize::shorter;
    bool mirror = false;  // left and right change places at the end
    bool ranged = false;  // low becomes 0 and high 1; otherwise 0 and the type's maximum do
    double low = 0;
    double high = 1;
    Mask mask = Mask::keep;            // the last channel, where it is a mask
    std::span<const float> mean;       // empty, or one per output channel
    std::span<const float> deviation;  // ... likewise
};

/// Shape of one image's output.
struct Frame {
    std::uint32_t channels = 0;
    std::uint32_t height = 0;
    std::uint32_t width = 0;

    [[nodiscard]] bool operator==(const Frame&) const noexcept = default;
    [[nodiscard]] std::uint64_t pixels() const noexcept { return std::uint64_t{height} * width; }
};

/// Leaves of the planes what is within the window, without moving it.
Status cut(Planes& planes, const Window& window) noexcept;

/// The frame that planes become; its channels are 0 where the mask was the only one.
Frame frame_of(const Planes& planes, const Preprocess& how) noexcept;

/// Fills `out` (frame.channels, frame.height, frame.width); `planes` must become exactly `frame`. Planes lie
/// in `work`, as decode_planes leaves them.
Status preprocess(const Planes& planes, const Preprocess& how, const Frame& frame, Workspace& work,
                  float* out) noexcept;

/// The same; but an image of floats fails where a pixel that `out` depends on, or what becomes of it, is not a finite
/// number.
Status preprocess_finite(const Planes& planes, const Preprocess& how, const Frame& frame, Workspace& work,
                         float* out) noexcept;

}  // namespace chammi
