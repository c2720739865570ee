#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "chammi/buffer.hpp"
#include "chammi/crop.hpp"
#include "chammi/field.hpp"
#include "chammi/preprocess.hpp"
#include "chammi/status.hpp"

namespace chammi {

/// How fields become batches of crops.
struct CropPlan {
    CropSettings crops;
    Preprocess how;  // its spans view `mean` and `deviation` once the stream is made
    std::vector<float> mean;
    std::vector<float> deviation;
    std::uint32_t channels = 0;    // 0: those of each field; of a single file's, as many as a batch can afford
    std::uint64_t batch_size = 1;  // crops; the last batch of a field may be smaller
    std::uint32_t threads = 1;
    std::uint32_t look_ahead = 0;  // batches prepared beyond the one that was handed out last
    bool decoded = false;          // planes in memory are those of a file, which decided on their number
    Limits limits;
};

/// Crops of one field: (statuses.size(), channels, height, width) of `type`, without channels where a single file has
/// too many for a batch or memory is short. A field has at least one batch, which is empty where it has no cells.
struct LoadedCrops {
    std::shared_ptr<Buffer> images;  // null where not even an empty batch could be had
    Frame frame;
    SampleType type = SampleType::f32;
    std::vector<Status> statuses;
    std::vector<std::uint8_t> touches_edge;
    std::uint64_t first = 0;  // cell of the field
    bool last = false;        // batch of the field
    Status field;
    std::uint64_t culprit = 0;
    std::vector<Bounds> bounds;
};

/// Threads that decode fields, the sources of one side by side, and cut, resize and normalise the cells of those that
/// are decoded. Fields and cells come out in the order in which they went in. A cell or field that fails becomes rows
/// of NaN (zeros where samples stay as they are) and a status; it never stops the stream.
class CropStream {
 public:
    explicit CropStream(CropPlan plan);
    CropStream(const CropStream&) = delete;
    CropStream& operator=(const CropStream&) = delete;
    CropStream(CropStream&&) = delete;
    CropStream& operator=(CropStream&&) = delete;
    /// Stops and joins the threads: each finishes the cell or file it has in hand.
    ~CropStream();

    /// Adds a field, which has at least one source. What it views must live until its last batch was handed out.
    void push(FieldPlan field);

    enum class Next : std::uint8_t { ready, pending, finished };

    /// Waits for at most `patience` until the next batch is complete, and hands it out where it is `ready`. `finished`
    /// where all fields that were pushed were handed out.
    Next next(std::chrono::milliseconds patience, LoadedCrops& batch);

    /// As the destructor does; next() says `finished` afterwards.
    void stop() noexcept;

 private:
    class Work;
    std::unique_ptr<Work> work_;
};

}  // namespace chammi
