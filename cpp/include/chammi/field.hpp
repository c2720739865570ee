#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "chammi/buffer.hpp"
#include "chammi/decode.hpp"
#include "chammi/file.hpp"
#include "chammi/percentile.hpp"
#include "chammi/status.hpp"
#include "chammi/workspace.hpp"

namespace chammi {

class BufferPool;

/// One image file of a field, or planes that are in memory already and belong to someone else.
struct FieldSource {
    ImageSource encoded;
    std::optional<Planes> planes;
};

/// A function (height, width) that a channel is divided by, or none where `values` is null.
struct Illumination {
    const float* values = nullptr;
    std::uint32_t height = 0;
    std::uint32_t width = 0;
};

/// The object that each pixel belongs to, 0 for none, (height, width); null where nothing is known of objects.
struct Labels {
    const std::int32_t* values = nullptr;
    std::uint32_t height = 0;
    std::uint32_t width = 0;
};

struct Centre {
    double x = 0;
    double y = 0;
};

/// One field of view and its cells. What it views must outlive its use.
struct FieldPlan {
    std::vector<FieldSource> sources;        // one plane each; or one with all planes
    std::vector<Illumination> illumination;  // none, or one per channel
    Labels labels;
    std::vector<Centre> centres;        // in pixels; whole numbers are the centres of pixels
    std::vector<std::int32_t> objects;  // none, or the label of each cell
};

enum class CropScale : std::uint8_t {
    none,   // samples stay as they are
    range,  // from a fixed range to [0, 1]
    field,  // from percentiles of the channel in the field
    crop,   // from the least and greatest sample of the channel in the crop
};

struct Scaling {
    CropScale scale = CropScale::field;
    Bounds percentiles{0.1, 99.9};
    std::optional<Bounds> range;  // none: from 0 to the greatest number of the samples' type
};

/// What one thread keeps from field to field.
struct FieldWorkspace {
    Workspace codec;
    Buffer counts;
    Buffer rows;     // where a crop's rows and columns come from
    Buffer shown;    // which of its pixels are the cell's own
    Buffer cut;      // one channel of a crop as it was cut
    Buffer cropped;  // all of them, scaled

    /// Gives back buffers of more than `most` bytes.
    void trim(std::size_t most) noexcept {
        codec.trim(most);
        for (Buffer* buffer : {&rows, &shown, &cut, &cropped}) {
            buffer->trim(most);
        }
    }
};

/// The channels of a field, each decoded, corrected and measured once.
class Field {
 public:
    /// `channels` is 0 where their number is not known before. The plan must outlive the field.
    Field(const FieldPlan& plan, const Scaling& scaling, std::uint32_t channels, const Limits& limits,
          std::shared_ptr<BufferPool> pool);

    /// Loads what is in one of the plan's sources. Several threads may load different sources at once.
    void load(std::size_t source, FieldWorkspace& work) noexcept;
    /// Bytes that a source's planes take; 0 where it was not decoded.
    [[nodiscard]] std::uint64_t bytes_of(std::size_t source) const noexcept;

    /// Says what became of the field, once all sources were loaded.
    void complete() noexcept;

    [[nodiscard]] const Status& status() const noexcept { return status_; }
    /// The source that the status is about; the number of sources where it is about the labels.
    [[nodiscard]] std::size_t culprit() const noexcept { return culprit_; }
    [[nodiscard]] const FieldPlan& plan() const noexcept { return plan_; }
    /// All channels of a field without fault, one after the other: as in the files where those are of 8 or 16 bits and
    /// there are no illumination functions, and float32 elsewhere.
    [[nodiscard]] const Planes& planes() const noexcept { return planes_; }
    /// What becomes 0 and 1, by channel; empty where the field does not decide that.
    [[nodiscard]] const std::vector<Bounds>& bounds() const noexcept { return bounds_; }

 private:
    Status load_planes(std::size_t source, FieldWorkspace& work) noexcept;
    Status check_channels(const Planes& planes) const noexcept;
    void prepare(const Planes& planes, std::uint32_t channels) noexcept;
    Status put(const Planes& planes, std::uint32_t from, std::uint32_t channel, double full,
               FieldWorkspace& work) noexcept;
    template <typename T>
    Status put_samples(const T* samples, std::uint32_t channel) noexcept;
    Status judge(std::size_t& culprit) const noexcept;
    Status measure(std::uint32_t channel, double full, FieldWorkspace& work) noexcept;

    const FieldPlan& plan_;
    Scaling scaling_;
    std::uint32_t channels_;
    Limits limits_;
    std::shared_ptr<BufferPool> pool_;

    std::once_flag prepared_;
    Status preparation_;
    std::shared_ptr<Buffer> buffer_;
    Planes planes_;
    std::vector<Bounds> bounds_;

    std::vector<Planes> found_;  // by source: type, size and number of planes
    std::vector<Status> statuses_;
    Status status_;
    std::size_t culprit_ = 0;
};

}  // namespace chammi
