#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "chammi/buffer.hpp"
#include "chammi/file.hpp"
#include "chammi/preprocess.hpp"
#include "chammi/status.hpp"

namespace chammi {

/// Everything a stream of batches is made from.
struct BatchPlan {
    std::vector<ImageSource> sources;           // what they view must outlive the stream
    std::vector<std::uint32_t> channel_widths;  // one for all, or one per image; 0: no tape
    std::vector<Window> windows;                // none, or one per image: what is left of it
    std::vector<bool> mirrored;                 // none, or one per image
    Preprocess how;                             // its spans view `mean` and `deviation` once the stream is made
    std::vector<float> mean;
    std::vector<float> deviation;
    std::uint32_t channels = 0;    // 0: those of the batch's first image that can be decoded and held so many times
    std::uint64_t batch_size = 1;  // images; the last batch may be smaller
    std::uint32_t threads = 1;
    std::uint32_t look_ahead = 0;  // batches prepared beyond the one that was handed out last
    Limits limits;
};

/// Whether a batch may be of so many images like this frame where its size was not asked for: with the default limit,
/// up to 8 GiB of float32.
bool is_affordable(const Frame& frame, std::uint64_t images, const Limits& limits) noexcept;
/// One image must not decide on more memory for its batch than is affordable.
Status check_batch(const Frame& frame, std::uint64_t images, const Limits& limits) noexcept;

/// A finished batch: float32 (statuses.size(), channels, height, width), without channels where no image gave their
/// number or memory is short. The memory goes back to the stream's pool when the last owner lets go.
struct LoadedBatch {
    std::shared_ptr<Buffer> images;
    Frame frame;
    std::vector<Status> statuses;
};

/// Threads that read, decode and preprocess images into batches, in input order and at most `look_ahead`
/// batches ahead. One image that fails becomes a row of NaN and a status; it never stops the stream.
class BatchStream {
 public:
    /// Starts the threads. A system that grants fewer threads than asked for gives a slower stream.
    explicit BatchStream(BatchPlan plan);
    BatchStream(const BatchStream&) = delete;
    BatchStream& operator=(const BatchStream&) = delete;
    BatchStream(BatchStream&&) = delete;
    BatchStream& operator=(BatchStream&&) = delete;
    /// Stops and joins the threads: each finishes the image it has in hand.
    ~BatchStream();

    enum class Next : std::uint8_t { ready, pending, finished };

    /// Waits for at most `patience` until the next batch is complete, and hands it out where it is `ready`. Several
    /// threads may call at once: each batch goes to one of them.
    Next next(std::chrono::milliseconds patience, LoadedBatch& batch);

    /// As the destructor does; next() says `finished` afterwards. May be called at any time and more than once.
    void stop() noexcept;

 private:
    class Work;
    std::unique_ptr<Work> work_;
};

}  // namespace chammi
