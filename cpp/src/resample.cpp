#include "chammi/resample.hpp"

#include <algorithm>
#include <cmath>

namespace chammi {
namespace {

// Longer axes are placed in double precision. PyTorch places samples in float always, which up to here errs by less
// than a third of a pixel, and from 2^24 pixels on finds no pixel under some triangles.
constexpr std::uint32_t most_in_float = std::uint32_t{1} << 20U;

// The inputs under one output's triangle, at least one, and the triangle's place.
template <typename Real>
struct Reach {
    Real centre = 0;
    std::int64_t begin = 0;
    std::int64_t end = 0;
};

template <typename Real>
class Triangle {
 public:
    explicit Triangle(const AxisPlan& plan) noexcept
        : input_(plan.input),
          ratio_(static_cast<Real>(plan.input) / static_cast<Real>(plan.resized)),
          support_(std::max(ratio_, Real{1})),
          inverse_(Real{1} / support_) {}

    [[nodiscard]] Reach<Real> reach(std::uint64_t output) const noexcept {
        Reach<Real> reach;
        reach.centre = ratio_ * (static_cast<Real>(output) + half);
        // Cut off towards 0, as the definition does.
        const Real first = reach.centre - support_ + half;
        const Real last = reach.centre + support_ + half;
        reach.begin = std::clamp<std::int64_t>(static_cast<std::int64_t>(first), 0, input_ - 1);
        reach.end = std::clamp<std::int64_t>(static_cast<std::int64_t>(last), reach.begin + 1, input_);
        return reach;
    }

    // Where a reach ends without the pixels behind, which weigh nothing.
    [[nodiscard]] std::int64_t end_of_weights(const Reach<Real>& reach) const noexcept {
        std::int64_t end = reach.end;
        while (end - reach.begin > 1 && weight(reach, end - 1) == 0) {
            --end;
        }
        return end;
    }

    [[nodiscard]] Real weight(const Reach<Real>& reach, std::int64_t input) const noexcept {
        const Real distance = std::fabs((static_cast<Real>(input) - reach.centre + half) * inverse_);
        return std::max(Real{1} - distance, Real{0});
    }

 private:
    static constexpr Real half{0.5};

    std::int64_t input_;
    Real ratio_;
    Real support_;
    Real inverse_;
};

struct Extent {
    std::int64_t taps = 1;
    std::int64_t low = 0;
    std::int64_t high = 0;
    std::int64_t end = 0;
};

template <typename Real>
Extent measure(const AxisPlan& plan, const Triangle<Real>& triangle) noexcept {
    Extent extent{1, plan.input, 0, 0};
    for (std::uint64_t i = 0; i < plan.outputs; ++i) {
        const Reach<Real> reach = triangle.reach(plan.first + i);
        extent.taps = std::max(extent.taps, reach.end - reach.begin);
        extent.low = std::min(extent.low, reach.begin);
        extent.high = std::max(extent.high, reach.end);
        extent.end = std::max(extent.end, triangle.end_of_weights(reach));
    }
    return extent;
}

template <typename Real>
bool plan_with(const AxisPlan& plan, WeightOrder order, Buffer& storage, AxisWeights& weights) noexcept {
    const Triangle<Real> triangle{plan};
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
        const Reach<Real> reach = triangle.reach(plan.first + i);
        // Near the end, taps reach back from the border rather than beyond it; the spare ones weigh nothing.
        const std::int64_t start = std::min(reach.begin, extent.high - extent.taps);
        const std::uint64_t place = plan.mirrored ? outputs - 1 - i : i;
        starts[place] = static_cast<std::int32_t>(start - extent.low);
        Real total = 0;
        for (std::int64_t at = reach.begin; at < reach.end; ++at) {
            total += triangle.weight(reach, at);
        }
        for (std::int64_t at = reach.begin; at < reach.end; ++at) {
            const auto tap = static_cast<std::uint64_t>(at - start);
            values[place * output_step + tap * tap_step] = static_cast<float>(triangle.weight(reach, at) / total);
        }
    }
    weights.view = {starts, values, static_cast<std::int32_t>(outputs), static_cast<std::int32_t>(taps)};
    weights.low = static_cast<std::int32_t>(extent.low);
    weights.high = static_cast<std::int32_t>(extent.high);
    weights.end = static_cast<std::int32_t>(extent.end);
    return true;
}

}  // namespace

bool plan_axis(const AxisPlan& plan, WeightOrder order, Buffer& storage, AxisWeights& weights) noexcept {
    return plan.input <= most_in_float ? plan_with<float>(plan, order, storage, weights)
                                       : plan_with<double>(plan, order, storage, weights);
}

}  // namespace chammi
