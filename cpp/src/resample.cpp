#include "chammi/resample.hpp"

#include <algorithm>
#include <cmath>

namespace chammi {
namespace {

// The inputs under one output's triangle and the triangle's place, in the float arithmetic of the definition.
struct Reach {
    float centre = 0;
    std::int64_t begin = 0;
    std::int64_t end = 0;
};

class Triangle {
 public:
    explicit Triangle(const AxisPlan& plan) noexcept
        : input_(plan.input),
          ratio_(static_cast<float>(plan.input) / static_cast<float>(plan.resized)),
          support_(std::max(ratio_, 1.0F)),
          inverse_(1.0F / support_) {}

    [[nodiscard]] Reach reach(std::uint64_t output) const noexcept {
        Reach reach;
        reach.centre = ratio_ * (static_cast<float>(output) + 0.5F);
        // Cut off towards 0, as the definition does.
        const float first = reach.centre - support_ + 0.5F;
        const float last = reach.centre + support_ + 0.5F;
        reach.begin = std::max<std::int64_t>(static_cast<std::int64_t>(first), 0);
        reach.end = std::min<std::int64_t>(static_cast<std::int64_t>(last), input_);
        return reach;
    }

    [[nodiscard]] float weight(const Reach& reach, std::int64_t input) const noexcept {
        const float distance = std::fabs((static_cast<float>(input) - reach.centre + 0.5F) * inverse_);
        return std::max(1.0F - distance, 0.0F);
    }

 private:
    std::int64_t input_;
    float ratio_;
    float support_;
    float inverse_;
};

struct Extent {
    std::int64_t taps = 1;
    std::int64_t low = 0;
    std::int64_t high = 0;
};

Extent measure(const AxisPlan& plan, const Triangle& triangle) noexcept {
    Extent extent{1, plan.input, 0};
    for (std::uint64_t i = 0; i < plan.outputs; ++i) {
        const Reach reach = triangle.reach(plan.first + i);
        extent.taps = std::max(extent.taps, reach.end - reach.begin);
        extent.low = std::min(extent.low, reach.begin);
        extent.high = std::max(extent.high, reach.end);
    }
    return extent;
}

}  // namespace

bool plan_axis(const AxisPlan& plan, WeightOrder order, Buffer& storage, AxisWeights& weights) noexcept {
    const Triangle triangle{plan};
    const Extent extent = measure(plan, triangle);
    const std::uint64_t outputs = plan.outputs;
    const auto taps = static_cast<std::uint64_t>(extent.taps);
    if (!storage.resize(outputs * (taps + 1) * sizeof(float))) {
        return false;
    }
    auto* starts = storage.as<std::int32_t>();
    float* values = storage.as<float>() + outputs;
    std::fill(values, values + outputs * taps, 0.0F);
    const std::uint64_t output_step = order == WeightOrder::by_tap ? 1 : taps;
    const std::uint64_t tap_step = order == WeightOrder::by_tap ? outputs : 1;
    for (std::uint64_t i = 0; i < outputs; ++i) {
        const Reach reach = triangle.reach(plan.first + i);
        // Near the end, taps reach back from the border rather than beyond it; the spare ones weigh nothing.
        const std::int64_t start = std::min(reach.begin, extent.high - extent.taps);
        starts[i] = static_cast<std::int32_t>(start - extent.low);
        float total = 0;
        for (std::int64_t at = reach.begin; at < reach.end; ++at) {
            total += triangle.weight(reach, at);
        }
        for (std::int64_t at = reach.begin; at < reach.end; ++at) {
            const auto tap = static_cast<std::uint64_t>(at - start);
            values[i * output_step + tap * tap_step] = triangle.weight(reach, at) / total;
        }
    }
    weights.view = {starts, values, static_cast<std::int32_t>(outputs), static_cast<std::int32_t>(taps)};
    weights.low = static_cast<std::int32_t>(extent.low);
    weights.high = static_cast<std::int32_t>(extent.high);
    return true;
}

}  // namespace chammi
