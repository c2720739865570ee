#include "chammi/preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "chammi/kernels.hpp"
#include "chammi/resample.hpp"
#include "finite.hpp"

namespace chammi {
namespace {

// One axis of the way from a plane to the output: the pixels computed, and where they go.
struct Span {
    AxisPlan plan;
    std::uint32_t before = 0;  // padding in front
};

// Half of an excess, rounded half to even as Python's round() does, which torchvision's CenterCrop uses.
std::uint64_t crop_start(std::uint64_t excess) noexcept {
    const std::uint64_t half = excess / 2;
    return half + (excess % 2 != 0 && half % 2 != 0 ? 1 : 0);
}

Span span_of(std::uint32_t input, std::uint64_t resized, std::uint32_t wanted) noexcept {
    if (resized >= wanted) {
        return {{input, wanted, resized, crop_start(resized - wanted)}, 0};
    }
    const auto outputs = static_cast<std::uint32_t>(resized);
    return {{input, outputs, resized, 0}, (wanted - outputs) / 2};
}

struct Layout {
    Span y;
    Span x;
    [[nodiscard]] bool identity() const noexcept {
        return y.plan.input == y.plan.resized && x.plan.input == x.plan.resized;
    }
};

Layout layout_of(const Planes& planes, const Preprocess& how, const Frame& frame) noexcept {
    std::uint64_t height = planes.height;
    std::uint64_t width = planes.width;
    if (how.size != 0 && how.resize == Resize::both) {
        height = how.size;
        width = how.size;
    } else if (how.size != 0 && how.resize == Resize::shorter) {
        const std::uint64_t shorter = std::min(height, width);
        // As torchvision: the longer side is rounded down. Sides are below 2^28 and sizes below 2^16.
        height = height == shorter ? how.size : how.size * height / shorter;
        width = width == shorter ? how.size : how.size * width / shorter;
    }
    Layout layout{span_of(planes.height, height, frame.height), span_of(planes.width, width, frame.width)};
    if (how.mirror) {
        layout.x.plan.mirrored = true;
        layout.x.before = frame.width - layout.x.plan.outputs - layout.x.before;
    }
    return layout;
}

// value = gain * sample + bias, and what padding becomes.
struct Affine {
    float gain = 1;
    float bias = 0;
    float padding = 0;
};

Affine affine_of(const Planes& planes, const Preprocess& how, std::uint32_t channel, bool scaled) noexcept {
    const double low = how.ranged ? how.low : 0.0;
    const double high = how.ranged ? how.high : full_scale(planes.type);
    const double scale = scaled ? 1.0 : 1.0 / (high - low);
    const double shift = scaled ? 0.0 : low * scale;
    const double mean = how.mean.empty() ? 0.0 : static_cast<double>(how.mean[channel]);
    const double deviation = how.deviation.empty() ? 1.0 : static_cast<double>(how.deviation[channel]);
    return {static_cast<float>(scale / deviation), static_cast<float>(-(shift + mean) / deviation),
            static_cast<float>(-mean / deviation)};
}

// The pixels of one channel, of one of the kernels' source types.
template <typename T>
struct Plane {
    const T* data = nullptr;
    std::uint64_t row_stride = 0;
};

template <typename T>
struct Steps;
template <>
struct Steps<std::uint8_t> {
    static auto blend() noexcept { return kernels().blend_u8; }
    static auto scale() noexcept { return kernels().scale_u8; }
};
template <>
struct Steps<std::uint16_t> {
    static auto blend() noexcept { return kernels().blend_u16; }
    static auto scale() noexcept { return kernels().scale_u16; }
};
template <>
struct Steps<float> {
    static auto blend() noexcept { return kernels().blend_f32; }
    static auto scale() noexcept { return kernels().scale_f32; }
};

struct Weights {
    AxisWeights y;
    AxisWeights x;
};

// Rows up to the last one that has a weight: what lies behind may be anything, and be no number.
std::size_t taps_of(const float* weights, std::int32_t taps) noexcept {
    while (taps > 1 && weights[taps - 1] == 0.0F) {
        --taps;
    }
    return static_cast<std::size_t>(taps);
}

template <typename T>
void resize_plane(const Plane<T>& plane, const Weights& weights, const Affine& affine, float* row, float* out,
                  std::uint64_t out_stride) noexcept {
    const auto blend = Steps<T>::blend();
    const auto stretch = kernels().stretch;
    const AxisView& rows = weights.y.view;
    const auto columns = static_cast<std::size_t>(weights.x.end - weights.x.low);
    float* const used = row + columns;
    for (std::int32_t i = 0; i < rows.outputs; ++i) {
        const auto top = static_cast<std::uint64_t>(weights.y.low) + static_cast<std::uint64_t>(rows.start[i]);
        const T* from = plane.data + top * plane.row_stride + weights.x.low;
        const float* shares = rows.weights + std::ptrdiff_t{i} * rows.taps;
        blend(from, plane.row_stride, shares, taps_of(shares, rows.taps), columns, row);
        std::fill(used, row + (weights.x.high - weights.x.low), 0.0F);  // what weighs nothing may be no number
        stretch(row, weights.x.view, affine.gain, affine.bias, out);
        out += out_stride;
    }
}

template <typename T>
void copy_plane(const Plane<T>& plane, const Layout& layout, const Affine& affine, float* out,
                std::uint64_t out_stride) noexcept {
    const auto scale = Steps<T>::scale();
    for (std::uint32_t i = 0; i < layout.y.plan.outputs; ++i) {
        const T* from = plane.data + (layout.y.plan.first + std::uint64_t{i}) * plane.row_stride + layout.x.plan.first;
        scale(from, layout.x.plan.outputs, affine.gain, affine.bias, out);
        if (layout.x.plan.mirrored) {
            std::reverse(out, out + layout.x.plan.outputs);
        }
        out += out_stride;
    }
}

// What is neither shown nor hidden stays NaN, for preprocess_finite() to find.
template <typename T>
float masked_value(float value, T shown) noexcept {
    if constexpr (std::is_floating_point_v<T>) {
        if (std::isnan(shown)) {
            return shown;
        }
    }
    return shown != 0 ? value : 0.0F;
}

// A channel times the mask, on the scale where the range is [0, 1]: what the mask hides is exactly 0 there.
template <typename T>
void apply_mask(const Plane<T>& plane, const Plane<T>& mask, const Planes& planes, const Affine& affine,
                float* out) noexcept {
    for (std::uint32_t y = 0; y < planes.height; ++y) {
        const T* from = plane.data + y * plane.row_stride;
        const T* shown = mask.data + y * mask.row_stride;
        for (std::uint32_t x = 0; x < planes.width; ++x) {
            out[x] = masked_value(affine.gain * static_cast<float>(from[x]) + affine.bias, shown[x]);
        }
        out += planes.width;
    }
}

// Only what survives the crop is computed, straight from the decoded tape: planes are views into it. Decoding does not
// stop at the last row that is needed: where the shorter side is the height, as in CHAMMI's three data sets, that is
// the last row, and elsewhere the checksums at the end would go unchecked.

// Everything that is the same for all channels of one image.
struct Job {
    const Planes& planes;
    const Preprocess& how;
    const Frame& frame;
    Layout layout;
    Weights weights;
    Workspace& work;
};

template <typename T>
Plane<T> plane_of(const Planes& planes, std::uint32_t channel) noexcept {
    const auto* data = reinterpret_cast<const T*>(planes.data);
    return {data + channel * planes.channel_stride, planes.row_stride};
}

template <typename T>
void place_plane(const Job& job, const Plane<T>& plane, const Affine& affine, float* out) noexcept {
    const Layout& layout = job.layout;
    const bool padded = layout.y.plan.outputs < job.frame.height || layout.x.plan.outputs < job.frame.width;
    if (padded) {
        std::fill(out, out + job.frame.pixels(), affine.padding);
    }
    float* first = out + std::uint64_t{layout.y.before} * job.frame.width + layout.x.before;
    if (layout.identity()) {
        copy_plane(plane, layout, affine, first, job.frame.width);
    } else {
        resize_plane(plane, job.weights, affine, job.work.rows.as<float>(), first, job.frame.width);
    }
}

template <typename T>
Status run(const Job& job, float* out) noexcept {
    const Planes& planes = job.planes;
    const bool masked = job.how.mask == Mask::apply;
    if (masked && !job.work.masked.resize(std::uint64_t{planes.height} * planes.width * sizeof(float))) {
        return out_of_memory();
    }
    for (std::uint32_t channel = 0; channel < job.frame.channels; ++channel) {
        float* to = out + channel * job.frame.pixels();
        const Plane<T> plane = plane_of<T>(planes, channel);
        if (masked) {
            Preprocess scaling = job.how;
            scaling.mean = {};
            scaling.deviation = {};
            const Affine to_unit = affine_of(planes, scaling, channel, false);
            auto* hidden = job.work.masked.template as<float>();
            apply_mask(plane, plane_of<T>(planes, planes.channels - 1), planes, to_unit, hidden);
            place_plane(job, Plane<float>{hidden, planes.width}, affine_of(planes, job.how, channel, true), to);
        } else {
            place_plane(job, plane, affine_of(planes, job.how, channel, false), to);
        }
    }
    return success();
}

}  // namespace

Status cut(Planes& planes, const Window& window) noexcept {
    const auto outside = [](std::int64_t first, std::int64_t count, std::int64_t all) {
        return first < 0 || first > all || count < 1 || count > all - first;
    };
    if (outside(window.top, window.height, planes.height)) {
        return failure(Code::shape, "a window of {} rows from row {} on is not within the image's {}")
            .with(window.height, window.top, planes.height);
    }
    if (outside(window.left, window.width, planes.width)) {
        return failure(Code::shape, "a window of {} columns from column {} on is not within the image's {}")
            .with(window.width, window.left, planes.width);
    }
    const auto first =
        static_cast<std::uint64_t>(window.top) * planes.row_stride + static_cast<std::uint64_t>(window.left);
    planes.data += first * sample_bytes(planes.type);
    planes.height = static_cast<std::uint32_t>(window.height);
    planes.width = static_cast<std::uint32_t>(window.width);
    return success();
}

Frame frame_of(const Planes& planes, const Preprocess& how) noexcept {
    const bool keeps_size = how.size == 0;
    return {planes.channels - (how.mask == Mask::keep ? 0 : 1), keeps_size ? planes.height : how.size,
            keeps_size ? planes.width : how.size};
}

Status preprocess(const Planes& planes, const Preprocess& how, const Frame& frame, Workspace& work,
                  float* out) noexcept {
    Planes source = planes;
    Preprocess scaled = how;
    if (planes.type != SampleType::u8 && planes.type != SampleType::u16 && planes.type != SampleType::f32) {
        if (const Status status = to_float(planes, work, source); !status.ok()) {
            return status;
        }
        scaled.high = how.ranged ? how.high : full_scale(planes.type);
        scaled.ranged = true;
    }
    Job job{source, scaled, frame, layout_of(source, how, frame), {}, work};
    if (!job.layout.identity()) {
        const bool planned = plan_axis(job.layout.y.plan, WeightOrder::by_output, work.weights_y, job.weights.y) &&
                             plan_axis(job.layout.x.plan, WeightOrder::by_tap, work.weights_x, job.weights.x);
        const auto columns = static_cast<std::uint64_t>(job.weights.x.high - job.weights.x.low);
        if (!planned || !work.rows.resize(columns * sizeof(float))) {
            return out_of_memory();
        }
    }
    switch (source.type) {
        case SampleType::u8:
            return run<std::uint8_t>(job, out);
        case SampleType::u16:
            return run<std::uint16_t>(job, out);
        default:
            return run<float>(job, out);
    }
}

Status preprocess_finite(const Planes& planes, const Preprocess& how, const Frame& frame, Workspace& work,
                         float* out) noexcept {
    const Status status = preprocess(planes, how, frame, work, out);
    const bool whole =
        planes.type != SampleType::f16 && planes.type != SampleType::f32 && planes.type != SampleType::f64;
    return !status.ok() || whole ? status : check_finite(out, frame.pixels() * frame.channels);
}

}  // namespace chammi
