#include "chammi/batch.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <mutex>
#include <new>

#include "buffer_pool.hpp"
#include "crew.hpp"

namespace chammi {
namespace {

// Reads and decodes one image; the planes lie in `work`.
Status load(const BatchPlan& plan, std::uint64_t image, Workspace& work, Planes& planes, Frame& frame) noexcept {
    ConstBytes bytes;
    if (const Status status = read_source(plan.sources[image], plan.limits, work.file, bytes); !status.ok()) {
        return status;
    }
    const auto& widths = plan.channel_widths;
    const std::uint32_t width = widths.size() == 1 ? widths.front() : widths[image];
    if (const Status status = decode_planes(bytes, width, plan.limits, work, planes); !status.ok()) {
        return status;
    }
    if (!plan.windows.empty()) {
        if (const Status status = cut(planes, plan.windows[image]); !status.ok()) {
            return status;
        }
    }
    frame = frame_of(planes, plan.how);
    if (frame.channels == 0) {
        return failure(Code::shape, "the mask is the only channel of the image");
    }
    return success();
}

Status check_channels(std::uint32_t channels, std::uint32_t expected) noexcept {
    return channels == expected
               ? success()
               : failure(Code::shape, "the image has {} channels where {} are expected").with(channels, expected);
}

Status check_frame(const Frame& frame, const Frame& expected) noexcept {
    if (const Status status = check_channels(frame.channels, expected.channels); !status.ok()) {
        return status;
    }
    if (frame != expected) {
        return failure(Code::shape, "the image is {} x {} pixels and differs from the batch's first image: give a size")
            .with(frame.height, frame.width);
    }
    return success();
}

std::uint64_t values_of(const Frame& frame) noexcept {
    return frame.pixels() * frame.channels;
}

// Values of a batch; false where that overflows.
bool count_values(const Frame& frame, std::uint64_t images, std::uint64_t& values) noexcept {
    return multiply(frame.pixels(), frame.channels, values) && multiply(values, images, values);
}

// The plan without more threads or batches ahead than there is work for.
BatchPlan bounded(BatchPlan plan) noexcept {
    constexpr std::uint64_t most = std::numeric_limits<std::uint32_t>::max();
    const std::uint64_t images = std::max<std::size_t>(plan.sources.size(), 1);
    plan.batch_size = std::clamp<std::uint64_t>(plan.batch_size, 1, images);
    const std::uint64_t batches = (images + plan.batch_size - 1) / plan.batch_size;
    plan.look_ahead = std::min(plan.look_ahead, static_cast<std::uint32_t>(std::min(batches, most)));
    plan.threads = std::clamp(plan.threads, 1U, static_cast<std::uint32_t>(std::min(images, most)));
    return plan;
}

// One batch in the making.
struct Slot {
    static constexpr std::uint64_t nowhere = std::numeric_limits<std::uint64_t>::max();

    std::uint64_t first = 0;  // image
    std::uint64_t images = 0;
    std::uint64_t unfinished = 0;  // guarded by the stream's mutex
    std::once_flag framed;
    Frame frame;
    std::uint64_t placed = nowhere;  // image that the frame is of, where it was decoded for that
    std::shared_ptr<Buffer> buffer;
    std::vector<Status> statuses;
};

}  // namespace

bool is_affordable(const Frame& frame, std::uint64_t images, const Limits& limits) noexcept {
    constexpr std::uint64_t images_at_limit = 8;
    std::uint64_t values = 0;
    return count_values(frame, images, values) && limits.allow(values / images_at_limit);
}

Status check_batch(const Frame& frame, std::uint64_t images, const Limits& limits) noexcept {
    if (!is_affordable(frame, images, limits)) {
        return failure(Code::limit,
                       "{} images of {} channels, as this one has, are too much for one batch: give channels and a "
                       "size, or load fewer at once")
            .with(static_cast<std::int64_t>(images), frame.channels);
    }
    return success();
}

class BatchStream::Work {
 public:
    explicit Work(BatchPlan plan)
        : plan_(bounded(std::move(plan))),
          pool_(std::make_shared<BufferPool>(std::size_t{plan_.look_ahead} + 1)),
          batches_((plan_.sources.size() + plan_.batch_size - 1) / plan_.batch_size) {
        plan_.how.mean = plan_.mean;
        plan_.how.deviation = plan_.deviation;
        open_slots(0);
    }
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    Work(Work&&) = delete;
    Work& operator=(Work&&) = delete;
    ~Work() { stop(); }

    void start() {
        crew_.start(plan_.threads, [this] { serve(); });
    }

    Next next(std::chrono::milliseconds patience, LoadedBatch& batch) {
        std::unique_lock lock = crew_.lock();
        if (over()) {
            return Next::finished;
        }
        open_slots(1);
        crew_.tell_threads();
        ++waiting_;
        const bool ready = crew_.await_result(lock, patience, [this] {
            return taken_ == batches_ || (!slots_.empty() && slots_.front()->unfinished == 0);
        });
        --waiting_;
        if (over()) {
            return Next::finished;
        }
        if (!ready) {
            return Next::pending;
        }
        Slot& slot = *slots_.front();
        batch = {std::move(slot.buffer), slot.frame, std::move(slot.statuses)};
        slots_.pop_front();
        ++taken_;
        open_slots(waiting_ > 0 ? 1 : 0);
        crew_.tell_threads();
        crew_.tell_callers();  // somebody else may wait for the next one, or there is none
        return Next::ready;
    }

    void stop() noexcept {
        crew_.stop();
        const std::unique_lock lock = crew_.lock();
        slots_.clear();
    }

 private:
    struct Claim {
        Slot* slot = nullptr;  // null: nothing is left to do
        std::uint64_t image = 0;
    };

    // Nothing is left to hand out.
    [[nodiscard]] bool over() const noexcept { return crew_.stopped() || taken_ == batches_; }

    // Makes room for the batches that may be prepared: those ahead of the one handed out last, and the `awaited` one.
    // Only ever called from the caller's side, where running out of memory can be told.
    void open_slots(std::uint64_t awaited) {
        const std::uint64_t ahead = std::max<std::uint64_t>(plan_.look_ahead, awaited);
        while (opened_ < batches_ && opened_ < taken_ + ahead) {
            auto slot = std::make_unique<Slot>();
            slot->first = opened_ * plan_.batch_size;
            slot->images = std::min<std::uint64_t>(plan_.batch_size, plan_.sources.size() - slot->first);
            slot->unfinished = slot->images;
            slot->statuses.resize(slot->images);
            slots_.push_back(std::move(slot));
            ++opened_;
        }
    }

    Claim claim() noexcept {
        std::unique_lock lock = crew_.lock();
        crew_.await_work(
            lock, [this] { return next_image_ == plan_.sources.size() || next_image_ / plan_.batch_size < opened_; });
        if (crew_.stopped() || next_image_ == plan_.sources.size()) {
            return {};
        }
        const std::uint64_t image = next_image_++;
        return {slots_[image / plan_.batch_size - taken_].get(), image};
    }

    void finish(Slot& slot) noexcept {
        bool complete = false;
        {
            const std::unique_lock lock = crew_.lock();
            complete = --slot.unfinished == 0;
        }
        if (complete) {
            crew_.tell_callers();
        }
    }

    void serve() noexcept {
        Workspace work;
        for (Claim claimed = claim(); claimed.slot != nullptr; claimed = claim()) {
            Slot& slot = *claimed.slot;
            std::call_once(slot.framed, [&] { frame_batch(slot, work); });
            fill_place(slot, claimed.image - slot.first, work);
            work.trim();
            finish(slot);
        }
    }

    // Finds the shape of a batch and its memory. What is not given comes from its first image that can be decoded,
    // which then is in its place; what is wrong with those before it is kept.
    void frame_batch(Slot& slot, Workspace& work) const noexcept {
        slot.frame = {plan_.channels, plan_.how.size, plan_.how.size};
        if (plan_.channels != 0 && plan_.how.size != 0) {
            slot.buffer = lend(slot.frame, slot.images);
            if (slot.buffer == nullptr) {
                std::ranges::fill(slot.statuses, out_of_memory());
            }
        } else {
            for (std::uint64_t i = 0; i < slot.images && slot.buffer == nullptr && !crew_.stopped(); ++i) {
                slot.statuses[i] = frame_like(slot, i, work);
            }
        }
        if (slot.buffer == nullptr) {
            slot.frame.channels = plan_.how.size == 0 ? plan_.channels : 0;  // no values either way
            slot.buffer = lend(slot.frame, slot.images);
        }
    }

    // Gives a batch the shape of one of its images, and fills that image's place.
    Status frame_like(Slot& slot, std::uint64_t place, Workspace& work) const noexcept {
        Planes planes;
        Frame frame;
        Status status = load(plan_, slot.first + place, work, planes, frame);
        if (status.ok() && plan_.channels != 0) {
            status = check_channels(frame.channels, plan_.channels);
        }
        if (status.ok()) {
            status = check_batch(frame, slot.images, plan_.limits);
        }
        if (status.ok()) {
            slot.buffer = lend(frame, slot.images);
            if (slot.buffer == nullptr) {
                return out_of_memory();
            }
            slot.frame = frame;
            slot.placed = place;
            status = put(slot, place, planes, work);
        }
        return status;
    }

    // Null where memory is short.
    [[nodiscard]] std::shared_ptr<Buffer> lend(const Frame& frame, std::uint64_t images) const noexcept {
        std::uint64_t bytes = 0;
        if (!count_values(frame, images, bytes) || !multiply(bytes, sizeof(float), bytes)) {
            return nullptr;
        }
        try {
            return pool_->lend(bytes);
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
    }

    void fill_place(Slot& slot, std::uint64_t place, Workspace& work) const noexcept {
        if (slot.buffer == nullptr) {
            return;  // not even an empty batch could be had: next() tells
        }
        Status& status = slot.statuses[place];
        if (status.ok() && place != slot.placed && !crew_.stopped()) {
            status = load_into(slot, place, work);
        }
        if (!status.ok()) {
            float* out = row(slot, place);
            std::fill(out, out + values_of(slot.frame), std::numeric_limits<float>::quiet_NaN());
        }
    }

    [[nodiscard]] static float* row(const Slot& slot, std::uint64_t place) noexcept {
        return slot.buffer->as<float>() + place * values_of(slot.frame);
    }

    Status load_into(const Slot& slot, std::uint64_t place, Workspace& work) const noexcept {
        Planes planes;
        Frame frame;
        Status status = load(plan_, slot.first + place, work, planes, frame);
        if (status.ok()) {
            status = check_frame(frame, slot.frame);
        }
        return status.ok() ? put(slot, place, planes, work) : status;
    }

    Status put(const Slot& slot, std::uint64_t place, const Planes& planes, Workspace& work) const noexcept {
        Preprocess how = plan_.how;
        how.mirror = !plan_.mirrored.empty() && plan_.mirrored[slot.first + place];
        return preprocess_finite(planes, how, slot.frame, work, row(slot, place));
    }

    BatchPlan plan_;
    std::shared_ptr<BufferPool> pool_;
    std::uint64_t batches_;

    std::deque<std::unique_ptr<Slot>> slots_;  // in order; the front one is the next to be handed out
    std::uint64_t next_image_ = 0;
    std::uint64_t opened_ = 0;   // batches that have or had a slot
    std::uint64_t taken_ = 0;    // batches handed out
    std::uint64_t waiting_ = 0;  // callers of next()
    Crew crew_;                  // whose lock guards all of these; ends before them
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
