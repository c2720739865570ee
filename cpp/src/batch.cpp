#include "chammi/batch.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <limits>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "buffer_pool.hpp"
#include "chammi/file.hpp"

namespace chammi {
namespace {

// Reads and decodes one file; the planes lie in `work`.
Status load(const BatchPlan& plan, std::uint64_t image, Workspace& work, Planes& planes, Frame& frame) noexcept {
    if (const Status status = read_file(plan.paths[image], plan.limits, work.file); !status.ok()) {
        return status;
    }
    const auto& widths = plan.channel_widths;
    const std::uint32_t width = widths.size() == 1 ? widths.front() : widths[image];
    if (const Status status = decode_planes(work.file.bytes(), width, plan.limits, work, planes); !status.ok()) {
        return status;
    }
    frame = frame_of(planes, plan.how);
    if (frame.channels == 0) {
        return failure(Code::shape, "the mask is the only channel of the image");
    }
    return success();
}

Status check_frame(const Frame& frame, const Frame& expected) noexcept {
    if (frame.channels != expected.channels) {
        return failure(Code::shape, "the image has {} channels where {} are expected")
            .with(frame.channels, expected.channels);
    }
    if (frame != expected) {
        return failure(Code::shape, "the image is {} x {} pixels and differs from the batch's first image: give a size")
            .with(frame.height, frame.width);
    }
    return success();
}

// One batch in the making.
struct Slot {
    std::uint64_t first = 0;  // image
    std::uint64_t images = 0;
    std::uint64_t unfinished = 0;  // guarded by the stream's mutex
    std::once_flag framed;
    Frame frame;
    std::shared_ptr<Buffer> buffer;
    std::vector<Status> statuses;
};

}  // namespace

class BatchStream::Work {
 public:
    explicit Work(BatchPlan plan)
        : plan_(std::move(plan)),
          pool_(std::make_shared<BufferPool>(std::size_t{plan_.look_ahead} + 1)),
          batches_((plan_.paths.size() + plan_.batch_size - 1) / plan_.batch_size) {
        plan_.how.mean = plan_.mean;
        plan_.how.deviation = plan_.deviation;
        open_slots();
    }

    void start() {
        const std::uint64_t wanted =
            std::clamp<std::uint64_t>(plan_.threads, 1, std::max<std::size_t>(plan_.paths.size(), 1));
        threads_.reserve(wanted);
        for (std::uint64_t i = 0; i < wanted; ++i) {
            try {
                threads_.emplace_back([this] { serve(); });
            } catch (const std::system_error&) {
                if (threads_.empty()) {
                    throw;
                }
                break;
            }
        }
    }

    Next next(std::chrono::milliseconds patience, LoadedBatch& batch) {
        std::unique_lock lock{mutex_};
        if (stopped_ || taken_ == batches_) {
            return Next::finished;
        }
        awaited_ = true;
        open_slots();
        work_available_.notify_all();
        const bool ready =
            batch_complete_.wait_for(lock, patience, [this] { return stopped_ || slots_.front()->unfinished == 0; });
        if (stopped_) {
            return Next::finished;
        }
        if (!ready) {
            return Next::pending;
        }
        Slot& slot = *slots_.front();
        batch = {std::move(slot.buffer), slot.frame, std::move(slot.statuses)};
        slots_.pop_front();
        ++taken_;
        awaited_ = false;
        open_slots();
        work_available_.notify_all();
        return Next::ready;
    }

    void stop() noexcept {
        {
            const std::scoped_lock lock{mutex_};
            stopped_ = true;
        }
        work_available_.notify_all();
        batch_complete_.notify_all();
        for (std::thread& thread : threads_) {
            if (thread.joinable()) {
                thread.join();
            }
        }
        slots_.clear();
    }

 private:
    struct Claim {
        Slot* slot = nullptr;  // null: nothing is left to do
        std::uint64_t image = 0;
    };

    // Makes room for the batches that may be prepared: those ahead of the one handed out last, and one that
    // is waited for. Only ever called from the caller's side, where running out of memory can be told.
    void open_slots() {
        const std::uint64_t ahead = std::max<std::uint64_t>(plan_.look_ahead, awaited_ ? 1 : 0);
        while (opened_ < batches_ && opened_ < taken_ + ahead) {
            auto slot = std::make_unique<Slot>();
            slot->first = opened_ * plan_.batch_size;
            slot->images = std::min<std::uint64_t>(plan_.batch_size, plan_.paths.size() - slot->first);
            slot->unfinished = slot->images;
            slot->statuses.resize(slot->images);
            slots_.push_back(std::move(slot));
            ++opened_;
        }
    }

    Claim claim() noexcept {
        std::unique_lock lock{mutex_};
        work_available_.wait(lock, [this] {
            return stopped_ || next_image_ == plan_.paths.size() || next_image_ / plan_.batch_size < opened_;
        });
        if (stopped_ || next_image_ == plan_.paths.size()) {
            return {};
        }
        const std::uint64_t image = next_image_++;
        return {slots_[image / plan_.batch_size - taken_].get(), image};
    }

    void finish(Slot& slot) noexcept {
        bool complete = false;
        {
            const std::scoped_lock lock{mutex_};
            complete = --slot.unfinished == 0;
        }
        if (complete) {
            batch_complete_.notify_all();
        }
    }

    void serve() noexcept {
        Workspace work;
        for (Claim claimed = claim(); claimed.slot != nullptr; claimed = claim()) {
            Slot& slot = *claimed.slot;
            std::call_once(slot.framed, [&] { frame_batch(slot, work); });
            const std::uint64_t place = claimed.image - slot.first;
            slot.statuses[place] = slot.buffer == nullptr ? out_of_memory() : load_into(slot, place, work);
            finish(slot);
        }
    }

    // Finds the shape of a batch and its memory. What is not given comes from its first image that can be
    // decoded.
    void frame_batch(Slot& slot, Workspace& work) noexcept {
        slot.frame = {plan_.channels, plan_.how.size, plan_.how.size};
        const bool known = plan_.channels != 0 && plan_.how.size != 0;
        for (std::uint64_t i = 0; i < slot.images && !known; ++i) {
            Planes planes;
            Frame frame;
            if (load(plan_, slot.first + i, work, planes, frame).ok() &&
                (plan_.channels == 0 || plan_.channels == frame.channels)) {
                slot.frame = frame;
                break;
            }
        }
        std::uint64_t bytes = 0;
        if (multiply(slot.frame.pixels(), slot.frame.channels, bytes) && multiply(bytes, slot.images, bytes) &&
            multiply(bytes, sizeof(float), bytes)) {
            slot.buffer = lend(bytes);
        }
    }

    [[nodiscard]] std::shared_ptr<Buffer> lend(std::uint64_t bytes) const noexcept {
        try {
            return pool_->lend(bytes);
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
    }

    Status load_into(Slot& slot, std::uint64_t place, Workspace& work) const noexcept {
        const std::uint64_t values = slot.frame.pixels() * slot.frame.channels;
        float* out = slot.buffer->as<float>() + place * values;
        Planes planes;
        Frame frame;
        Status status = load(plan_, slot.first + place, work, planes, frame);
        if (status.ok()) {
            status = check_frame(frame, slot.frame);
        }
        if (status.ok()) {
            status = preprocess(planes, plan_.how, slot.frame, work, out);
        }
        if (!status.ok()) {
            std::fill(out, out + values, std::numeric_limits<float>::quiet_NaN());
        }
        return status;
    }

    BatchPlan plan_;
    std::shared_ptr<BufferPool> pool_;
    std::uint64_t batches_;

    std::mutex mutex_;
    std::condition_variable work_available_;
    std::condition_variable batch_complete_;
    std::deque<std::unique_ptr<Slot>> slots_;  // in order; the front one is the next to be handed out
    std::uint64_t next_image_ = 0;
    std::uint64_t opened_ = 0;  // batches that have or had a slot
    std::uint64_t taken_ = 0;   // batches handed out
    bool awaited_ = false;
    bool stopped_ = false;
    std::vector<std::thread> threads_;
};

BatchStream::BatchStream(BatchPlan plan) : work_(std::make_unique<Work>(std::move(plan))) {
    work_->start();
}

BatchStream::~BatchStream() {
    work_->stop();
}

BatchStream::Next BatchStream::next(std::chrono::milliseconds patience, LoadedBatch& batch) {
    return work_->next(patience, batch);
}

void BatchStream::stop() noexcept {
    work_->stop();
}

}  // namespace chammi
