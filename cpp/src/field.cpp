#include "chammi/field.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "buffer_pool.hpp"
#include "finite.hpp"

namespace chammi {
namespace {

// Division by 0 or less, or by what is not a number, would pass for pixels. Without a way out half-way, which is what
// makes it fast.
bool all_positive(const float* values, std::uint64_t count) noexcept {
    std::uint32_t faults = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        faults |= values[i] > 0.0F ? 0U : 1U;
    }
    return faults == 0;
}

template <typename T>
void to_float(const T* samples, const Illumination& illumination, std::uint64_t count, float* out) noexcept {
    const float* divisor = illumination.values;
    if (divisor == nullptr) {
        for (std::uint64_t i = 0; i < count; ++i) {
            out[i] = static_cast<float>(samples[i]);
        }
        return;
    }
    for (std::uint64_t i = 0; i < count; ++i) {
        out[i] = static_cast<float>(samples[i]) / divisor[i];
    }
}

std::uint64_t pixels_of(const Planes& planes) noexcept {
    return std::uint64_t{planes.height} * planes.width;
}

bool is_plain(SampleType type) noexcept {
    return type == SampleType::u8 || type == SampleType::u16 || type == SampleType::f32;
}

}  // namespace

Field::Field(const FieldPlan& plan, const Scaling& scaling, std::uint32_t channels, const Limits& limits,
             std::shared_ptr<BufferPool> pool)
    : plan_(plan),
      scaling_(scaling),
      channels_(channels),
      limits_(limits),
      pool_(std::move(pool)),
      found_(plan.sources.size()),
      statuses_(plan.sources.size()) {}

void Field::load(std::size_t source, FieldWorkspace& work) noexcept {
    statuses_[source] = load_planes(source, work);
}

std::uint64_t Field::bytes_of(std::size_t source) const noexcept {
    const Planes& planes = found_[source];
    return planes.data == nullptr ? 0 : pixels_of(planes) * planes.channels * sample_bytes(planes.type);
}

Status Field::check_channels(const Planes& planes) const noexcept {
    if (plan_.sources.size() > 1 && planes.channels != 1) {
        return failure(Code::shape,
                       "the file holds {} planes: it must be one, as the field has a file for each channel")
            .with(planes.channels);
    }
    const std::size_t channels = plan_.sources.size() > 1 ? plan_.sources.size() : planes.channels;
    if (channels_ != 0 && channels != channels_) {
        return failure(Code::shape, "the field has {} channels where {} are expected")
            .with(static_cast<std::int64_t>(channels), channels_);
    }
    if (!plan_.illumination.empty() && plan_.illumination.size() != channels) {
        return failure(Code::shape, "the field has {} channels and {} illumination functions")
            .with(static_cast<std::int64_t>(channels), static_cast<std::int64_t>(plan_.illumination.size()));
    }
    return success();
}

Status Field::load_planes(std::size_t source, FieldWorkspace& work) noexcept {
    Planes planes;
    const FieldSource& from = plan_.sources[source];
    if (from.planes.has_value()) {
        planes = *from.planes;
    } else {
        ConstBytes bytes;
        if (const Status status = read_source(from.encoded, limits_, work.codec.file, bytes); !status.ok()) {
            return status;
        }
        if (const Status status = decode_planes(bytes, 0, limits_, work.codec, planes); !status.ok()) {
            return status;
        }
    }
    found_[source] = planes;
    if (const Status status = check_channels(planes); !status.ok()) {
        return status;
    }
    const bool one_file = plan_.sources.size() == 1;
    const std::uint32_t channels = one_file ? planes.channels : static_cast<std::uint32_t>(plan_.sources.size());
    std::call_once(prepared_, [&] { prepare(planes, channels); });
    if (!preparation_.ok()) {
        return preparation_;
    }
    // The buffer is of the size and type of the first file that is there, whichever that is; complete() compares all
    // with the first one and names those that differ.
    const bool fits = planes_.type == SampleType::f32 || planes.type == planes_.type;
    if (planes.height != planes_.height || planes.width != planes_.width || !fits) {
        return success();
    }
    const double full = full_scale(planes.type);
    if (!is_plain(planes.type)) {
        if (const Status status = chammi::to_float(planes, work.codec, planes); !status.ok()) {
            return status;
        }
    }
    for (std::uint32_t i = 0; i < planes.channels; ++i) {
        const auto channel = one_file ? i : static_cast<std::uint32_t>(source);
        if (const Status status = put(planes, i, channel, full, work); !status.ok()) {
            return status;
        }
    }
    return success();
}

void Field::prepare(const Planes& planes, std::uint32_t channels) noexcept {
    constexpr std::uint64_t planes_at_limit = 8;
    const bool corrected =
        std::ranges::any_of(plan_.illumination, [](const auto& one) { return one.values != nullptr; });
    const SampleType type = corrected || !is_plain(planes.type) ? SampleType::f32 : planes.type;
    std::uint64_t values = 0;
    if (!multiply(pixels_of(planes), channels, values) || !limits_.allow(values / planes_at_limit)) {
        preparation_ = failure(Code::limit, "{} channels of {} x {} pixels exceed the pixel limit")
                           .with(channels, planes.height, planes.width);
        return;
    }
    try {
        buffer_ = pool_->lend(values * sample_bytes(type));
        if (scaling_.scale == CropScale::field || scaling_.scale == CropScale::range) {
            bounds_.resize(channels);
        }
    } catch (const std::bad_alloc&) {
        buffer_ = nullptr;
    }
    if (buffer_ == nullptr) {
        preparation_ = out_of_memory();
        return;
    }
    planes_ = {buffer_->data(), type, channels, planes.height, planes.width, pixels_of(planes), planes.width};
}

Status Field::put(const Planes& planes, std::uint32_t from, std::uint32_t channel, double full,
                  FieldWorkspace& work) noexcept {
    const std::uint64_t first = from * planes.channel_stride;
    Status status;
    switch (planes.type) {
        case SampleType::u8:
            status = put_samples(planes.data + first, channel);
            break;
        case SampleType::u16:
            status = put_samples(reinterpret_cast<const std::uint16_t*>(planes.data) + first, channel);
            break;
        default:
            status = put_samples(reinterpret_cast<const float*>(planes.data) + first, channel);
            break;
    }
    return status.ok() && !bounds_.empty() ? measure(channel, full, work) : status;
}

template <typename T>
Status Field::put_samples(const T* samples, std::uint32_t channel) noexcept {
    const std::uint64_t count = pixels_of(planes_);
    const Illumination illumination = plan_.illumination.empty() ? Illumination{} : plan_.illumination[channel];
    if (illumination.values != nullptr) {
        if (illumination.height != planes_.height || illumination.width != planes_.width) {
            return failure(Code::shape, "its illumination function is {} x {} pixels, unlike the image")
                .with(illumination.height, illumination.width);
        }
        if (!all_positive(illumination.values, count)) {
            return failure(Code::corrupt, "its illumination function is not above 0 everywhere");
        }
    }
    std::uint8_t* place = buffer_->data() + channel * count * sample_bytes(planes_.type);
    if (planes_.type != SampleType::f32) {
        std::memcpy(place, samples, count * sizeof(T));
        return success();
    }
    auto* corrected = reinterpret_cast<float*>(place);
    to_float(samples, illumination, count, corrected);
    return check_finite(corrected, count);
}

Status Field::measure(std::uint32_t channel, double full, FieldWorkspace& work) noexcept {
    Bounds& bounds = bounds_[channel];
    if (scaling_.scale == CropScale::range) {
        bounds = scaling_.range.value_or(Bounds{0.0, full});
        return success();
    }
    const std::uint64_t count = pixels_of(planes_);
    const std::uint8_t* samples = planes_.data + channel * count * sample_bytes(planes_.type);
    const auto find = [&](const auto* values) {
        return find_percentiles(values, count, scaling_.percentiles, work.counts, bounds);
    };
    bool found = false;
    switch (planes_.type) {
        case SampleType::u8:
            found = find(samples);
            break;
        case SampleType::u16:
            found = find(reinterpret_cast<const std::uint16_t*>(samples));
            break;
        default:
            found = find(reinterpret_cast<const float*>(samples));
            break;
    }
    return found ? success() : out_of_memory();
}

void Field::complete() noexcept {
    status_ = judge(culprit_);
}

Status Field::judge(std::size_t& culprit) const noexcept {
    for (culprit = 0; culprit < statuses_.size(); ++culprit) {
        if (!statuses_[culprit].ok()) {
            return statuses_[culprit];
        }
    }
    const Planes& first = found_.front();
    for (culprit = 1; culprit < found_.size(); ++culprit) {
        const Planes& other = found_[culprit];
        if (other.height != first.height || other.width != first.width) {
            return failure(Code::shape, "the image is {} x {} pixels, unlike the field's first channel")
                .with(other.height, other.width);
        }
        if (other.type != first.type) {
            return failure(Code::shape, "the image's samples are of another type than the first channel's");
        }
    }
    const Labels& labels = plan_.labels;
    if (labels.values != nullptr && (labels.height != first.height || labels.width != first.width)) {
        return failure(Code::shape, "the labels are {} x {} pixels, unlike the field's channels")
            .with(labels.height, labels.width);
    }
    return success();
}

}  // namespace chammi
