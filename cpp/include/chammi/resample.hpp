#pragma once

#include <cstdint>

#include "chammi/buffer.hpp"
#include "chammi/kernels.hpp"

namespace chammi {

/// One axis of a resize of which only a stretch is wanted: `input` pixels become `resized`, and of those the
/// `outputs` from `first` on are computed.
struct AxisPlan {
    std::uint32_t input = 0;
    std::uint32_t outputs = 0;
    std::uint64_t resized = 0;  // a thin strip's longer side can become very long
    std::uint64_t first = 0;
    bool mirrored = false;  // the last of the outputs comes first
};

enum class WeightOrder : std::uint8_t {
    by_tap,     // weights[k * outputs + i]
    by_output,  // weights[i * taps + k]
};

/// The taps of an axis: a triangle filter as wide as the ratio when shrinking (antialiasing) and two pixels
/// wide when growing, cut off at the border and normalised, as PyTorch's antialiased bilinear interpolation
/// has it.
struct AxisWeights {
    AxisView view;
    std::int32_t low = 0;   // inputs used: from low
    std::int32_t high = 0;  // ... to before high
    std::int32_t end = 0;   // ... of which those from here on weigh nothing
};

/// Computes an axis into `storage`. Starts are relative to `low`. False where memory is short.
[[nodiscard]] bool plan_axis(const AxisPlan& plan, WeightOrder order, Buffer& storage, AxisWeights& weights) noexcept;

}  // namespace chammi
