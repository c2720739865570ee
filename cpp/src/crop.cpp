#include "chammi/crop.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "rescale.hpp"
#include "sample_types.hpp"

namespace chammi {
namespace {

constexpr std::int32_t nowhere = -1;

// One axis of a crop: the pixel of the field that each of its pixels comes from, or nowhere.
struct Axis {
    std::int64_t first = 0;        // of the field, may be negative
    std::int32_t* from = nullptr;  // by pixel of the crop
    std::uint32_t inside = 0;      // pixels of the crop from this one ...
    std::uint32_t outside = 0;     // ... to before this one are those of the field, in a row
};

struct CropAxes {
    std::uint32_t size = 0;
    Axis y;
    Axis x;
};

// The pixel that is nearest to the centre, halves going up. False where the field does not have it.
bool find_pixel(double centre, std::uint32_t extent, std::int64_t& pixel) noexcept {
    const double nearest = std::floor(centre + 0.5);
    const bool within = nearest >= 0.0 && nearest < static_cast<double>(extent);  // not what is not a number
    pixel = within ? static_cast<std::int64_t>(nearest) : 0;
    return within;
}

bool reaches_beyond(std::int64_t first, std::uint32_t size, std::uint32_t extent) noexcept {
    return first < 0 || first + std::int64_t{size} > std::int64_t{extent};
}

std::int32_t reflected(std::int64_t pixel, std::int64_t extent) noexcept {
    if (extent == 1) {
        return 0;
    }
    const std::int64_t period = 2 * (extent - 1);
    const std::int64_t place = ((pixel % period) + period) % period;
    return static_cast<std::int32_t>(std::min(place, period - place));
}

void map_axis(Axis& axis, std::uint32_t size, std::uint32_t extent, Edge edge) noexcept {
    axis.inside = static_cast<std::uint32_t>(std::clamp<std::int64_t>(-axis.first, 0, size));
    axis.outside = static_cast<std::uint32_t>(std::clamp<std::int64_t>(extent - axis.first, axis.inside, size));
    for (std::uint32_t i = 0; i < size; ++i) {
        const std::int64_t pixel = axis.first + i;
        const bool within = i >= axis.inside && i < axis.outside;
        if (within) {
            axis.from[i] = static_cast<std::int32_t>(pixel);
        } else {
            axis.from[i] = edge == Edge::reflect ? reflected(pixel, extent) : nowhere;
        }
    }
}

template <typename T>
void cut_row(const T* row, const Axis& x, std::uint32_t size, T* out) noexcept {
    const auto move = [&](std::uint32_t i) { out[i] = x.from[i] == nowhere ? T{} : row[x.from[i]]; };
    for (std::uint32_t i = 0; i < x.inside; ++i) {
        move(i);
    }
    if (x.outside > x.inside) {
        std::memcpy(out + x.inside, row + x.from[x.inside], (x.outside - x.inside) * sizeof(T));
    }
    for (std::uint32_t i = x.outside; i < size; ++i) {
        move(i);
    }
}

template <typename T>
void cut_plane(const T* plane, std::uint64_t row_stride, const CropAxes& axes, T* out) noexcept {
    for (std::uint32_t i = 0; i < axes.size; ++i) {
        if (axes.y.from[i] == nowhere) {
            std::fill(out, out + axes.size, T{});
        } else {
            cut_row(plane + static_cast<std::uint64_t>(axes.y.from[i]) * row_stride, axes.x, axes.size, out);
        }
        out += axes.size;
    }
}

// 1 where a crop shows the field, and no object but the cell's own.
void find_shown(const Field& field, const CropSettings& settings, const CropAxes& axes, std::int32_t own,
                std::uint8_t* shown) noexcept {
    const Labels& labels = field.plan().labels;
    for (std::uint32_t y = 0; y < axes.size; ++y) {
        for (std::uint32_t x = 0; x < axes.size; ++x) {
            const std::int32_t row = axes.y.from[y];
            const std::int32_t column = axes.x.from[x];
            bool visible = row != nowhere && column != nowhere;
            if (visible && settings.hide_neighbours) {
                const std::int32_t label =
                    labels.values[static_cast<std::uint64_t>(row) * labels.width + static_cast<std::uint64_t>(column)];
                visible = label == 0 || label == own;
            }
            *shown++ = visible ? 1 : 0;
        }
    }
}

template <typename T>
void hide(const std::uint8_t* shown, std::uint64_t pixels, T* out) noexcept {
    for (std::uint64_t i = 0; i < pixels; ++i) {
        out[i] = shown[i] != 0 ? out[i] : T{};
    }
}

// The least and greatest of the pixels that are shown; 0 and 0 where none is.
template <typename T>
Bounds find_extremes(const T* cut, const std::uint8_t* shown, std::uint64_t pixels) noexcept {
    T least = std::numeric_limits<T>::max();
    T greatest = std::numeric_limits<T>::lowest();
    for (std::uint64_t i = 0; i < pixels; ++i) {
        if (shown == nullptr || shown[i] != 0) {
            least = std::min(least, cut[i]);
            greatest = std::max(greatest, cut[i]);
        }
    }
    return least > greatest ? Bounds{} : Bounds{static_cast<double>(least), static_cast<double>(greatest)};
}

// A cell's place in its field.
struct Cell {
    CropAxes axes;
    bool touches_edge = false;
    const std::uint8_t* shown = nullptr;  // by pixel of the crop; null: all
};

Status place_cell(const CropJob& job, std::uint64_t number, FieldWorkspace& work, Cell& cell) noexcept {
    const Planes& field = job.field.planes();
    const FieldPlan& plan = job.field.plan();
    const CropSettings& settings = job.settings;
    const std::uint32_t size = settings.size;
    const Centre& centre = plan.centres[number];
    std::int64_t row = 0;
    std::int64_t column = 0;
    if (!find_pixel(centre.y, field.height, row) || !find_pixel(centre.x, field.width, column)) {
        return failure(Code::outside, "the cell's centre is not within the field of {} x {} pixels")
            .with(field.height, field.width);
    }
    cell.axes = {size, {row - size / 2, nullptr}, {column - size / 2, nullptr}};
    cell.touches_edge =
        reaches_beyond(cell.axes.y.first, size, field.height) || reaches_beyond(cell.axes.x.first, size, field.width);
    if (cell.touches_edge && settings.edge == Edge::skip) {
        return failure(Code::edge, "the crop of {} pixels around the cell reaches beyond the field").with(size);
    }
    const std::uint64_t pixels = std::uint64_t{size} * size;
    if (!work.rows.resize(std::uint64_t{2} * size * sizeof(std::int32_t)) || !work.shown.resize(pixels)) {
        return out_of_memory();
    }
    cell.axes.y.from = work.rows.as<std::int32_t>();
    cell.axes.x.from = cell.axes.y.from + size;
    map_axis(cell.axes.y, size, field.height, settings.edge);
    map_axis(cell.axes.x, size, field.width, settings.edge);
    if (settings.hide_neighbours || (cell.touches_edge && settings.edge == Edge::constant)) {
        const Labels& labels = plan.labels;
        std::int32_t own = 0;
        if (settings.hide_neighbours) {
            const auto at = static_cast<std::uint64_t>(row) * labels.width + static_cast<std::uint64_t>(column);
            own = plan.objects.empty() ? labels.values[at] : plan.objects[number];
        }
        find_shown(job.field, settings, cell.axes, own, work.shown.data());
        cell.shown = work.shown.data();
    }
    return success();
}

void cut_all(const Planes& field, const Cell& cell, std::uint8_t* out) noexcept {
    const std::uint64_t pixels = std::uint64_t{cell.axes.size} * cell.axes.size;
    with_size_of(field.type, [&]<typename T>(T /*sample*/) {
        for (std::uint32_t channel = 0; channel < field.channels; ++channel) {
            auto* to = reinterpret_cast<T*>(out) + channel * pixels;
            cut_plane(reinterpret_cast<const T*>(field.data) + channel * field.channel_stride, field.row_stride,
                      cell.axes, to);
            if (cell.shown != nullptr) {
                hide(cell.shown, pixels, to);
            }
        }
    });
}

// All channels scaled to [0, 1], into work.cropped.
template <typename T>
Status cut_and_scale(const Field& field, const Cell& cell, FieldWorkspace& work) noexcept {
    const Planes& planes = field.planes();
    const std::uint64_t pixels = std::uint64_t{cell.axes.size} * cell.axes.size;
    if (!work.cut.resize(pixels * sizeof(T)) || !work.cropped.resize(pixels * planes.channels * sizeof(float))) {
        return out_of_memory();
    }
    auto* cut = work.cut.as<T>();
    for (std::uint32_t channel = 0; channel < planes.channels; ++channel) {
        float* out = work.cropped.as<float>() + channel * pixels;
        cut_plane(reinterpret_cast<const T*>(planes.data) + channel * planes.channel_stride, planes.row_stride,
                  cell.axes, cut);
        const auto& bounds = field.bounds();
        rescale(cut, pixels, Rescale{bounds.empty() ? find_extremes(cut, cell.shown, pixels) : bounds[channel]}, out);
        if (cell.shown != nullptr) {
            hide(cell.shown, pixels, out);
        }
    }
    return success();
}

Status cut_and_scale_any(const Field& field, const Cell& cell, FieldWorkspace& work) noexcept {
    switch (field.planes().type) {
        case SampleType::u8:
            return cut_and_scale<std::uint8_t>(field, cell, work);
        case SampleType::u16:
            return cut_and_scale<std::uint16_t>(field, cell, work);
        default:
            return cut_and_scale<float>(field, cell, work);
    }
}

}  // namespace

Status crop_cell(const CropJob& job, std::uint64_t cell, FieldWorkspace& work, bool& touches_edge,
                 std::uint8_t* out) noexcept {
    const Planes& field = job.field.planes();
    Cell placed;
    const Status status = place_cell(job, cell, work, placed);
    touches_edge = placed.touches_edge;
    if (!status.ok()) {
        return status;
    }
    if (job.settings.scaling.scale == CropScale::none) {
        cut_all(field, placed, out);
        return success();
    }
    // Cut even where a view into the field would do: from rows that lie 4 KiB apart, resizing takes half as long again.
    if (const Status scaled = cut_and_scale_any(job.field, placed, work); !scaled.ok()) {
        return scaled;
    }
    const std::uint32_t size = job.settings.size;
    const Planes crop{
        work.cropped.data(), SampleType::f32, field.channels, size, size, std::uint64_t{size} * size, size};
    return preprocess(crop, job.how, job.frame, work.codec, reinterpret_cast<float*>(out));
}

}  // namespace chammi
