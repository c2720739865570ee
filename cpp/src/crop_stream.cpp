#include "chammi/crop_stream.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <mutex>
#include <new>
#include <utility>

#include "buffer_pool.hpp"
#include "chammi/batch.hpp"
#include "crew.hpp"
#include "recent_peak.hpp"

namespace chammi {
namespace {

// One batch in the making. What is not said to be guarded belongs to the thread that has the cell in hand.
struct Slot {
    std::uint64_t first = 0;  // cell
    std::uint64_t cells = 0;
    std::uint64_t claimed = 0;     // guarded by the stream's mutex
    std::uint64_t unfinished = 0;  // ... likewise
    std::once_flag framed;
    Frame frame;
    std::shared_ptr<Buffer> buffer;
    std::vector<Status> statuses;
    std::vector<std::uint8_t> touches_edge;
};

// One field on its way. All but plan and field is guarded by the stream's mutex.
struct Job {
    Job(FieldPlan given, const CropPlan& crops, std::shared_ptr<BufferPool> pool)
        : plan(std::move(given)),
          field(plan, crops.crops.scaling, crops.channels, crops.limits, std::move(pool)),
          unfinished(plan.sources.size()),
          batches(std::max<std::uint64_t>((plan.centres.size() + crops.batch_size - 1) / crops.batch_size, 1)) {}

    FieldPlan plan;
    Field field;
    std::uint64_t claimed = 0;  // sources
    std::uint64_t unfinished;   // ... likewise
    bool decoded = false;
    std::uint64_t batches;
    std::uint64_t opened = 0;
    std::deque<std::unique_ptr<Slot>> slots;  // in order; those that were opened and not handed out
};

std::uint64_t values_of(const Frame& frame) noexcept {
    return frame.pixels() * frame.channels;
}

}  // namespace

class CropStream::Work {
 public:
    explicit Work(CropPlan plan)
        : plan_(std::move(plan)),
          fields_(std::make_shared<BufferPool>(std::size_t{plan_.look_ahead} + 1)),
          batches_(std::make_shared<BufferPool>(std::size_t{plan_.look_ahead} + 1)) {
        plan_.batch_size = std::max<std::uint64_t>(plan_.batch_size, 1);
        plan_.how.mean = plan_.mean;
        plan_.how.deviation = plan_.deviation;
    }
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    Work(Work&&) = delete;
    Work& operator=(Work&&) = delete;
    ~Work() { stop(); }

    void start() {
        crew_.start(plan_.threads, [this] { serve(); });
    }

    void push(FieldPlan field) {
        auto job = std::make_unique<Job>(std::move(field), plan_, fields_);
        {
            const std::unique_lock lock = crew_.lock();
            jobs_.push_back(std::move(job));
            open_slots(0);
        }
        crew_.tell_threads();
    }

    Next next(std::chrono::milliseconds patience, LoadedCrops& batch) {
        std::unique_lock lock = crew_.lock();
        if (crew_.stopped() || jobs_.empty()) {
            return Next::finished;
        }
        open_slots(1);
        crew_.tell_threads();
        const bool ready = crew_.await_result(lock, patience, [this] { return front_is_complete(); });
        if (crew_.stopped() || jobs_.empty()) {
            return Next::finished;
        }
        if (!ready) {
            return Next::pending;
        }
        take_front(batch);
        open_slots(0);
        crew_.tell_threads();
        return Next::ready;
    }

    void stop() noexcept {
        crew_.stop();
        const std::unique_lock lock = crew_.lock();
        jobs_.clear();
    }

 private:
    struct Claim {
        Job* job = nullptr;    // null: the stream was stopped
        Slot* slot = nullptr;  // null: a source is to be loaded
        std::uint64_t number = 0;
    };

    [[nodiscard]] bool front_is_complete() const noexcept {
        if (jobs_.empty() || !jobs_.front()->decoded || jobs_.front()->slots.empty()) {
            return false;
        }
        return jobs_.front()->slots.front()->unfinished == 0;
    }

    // Makes room for the batches that may be prepared. Only ever called from the caller's side, where running out of
    // memory can be told.
    void open_slots(std::uint64_t awaited) {
        const std::uint64_t most = std::max<std::uint64_t>(plan_.look_ahead, awaited);
        for (const auto& job : jobs_) {
            while (job->opened < job->batches && open_ < most) {
                auto slot = std::make_unique<Slot>();
                slot->first = job->opened * plan_.batch_size;
                slot->cells = std::min<std::uint64_t>(plan_.batch_size, job->plan.centres.size() - slot->first);
                slot->unfinished = slot->cells;
                slot->statuses.resize(slot->cells);
                slot->touches_edge.resize(slot->cells);
                job->slots.push_back(std::move(slot));
                ++job->opened;
                ++open_;
            }
        }
    }

    // The first field's files come before its cells, and both before the next field's.
    Claim find_work() noexcept {
        for (const auto& job : jobs_) {
            if (job->claimed < job->plan.sources.size()) {
                return {job.get(), nullptr, job->claimed++};
            }
            for (const auto& slot : job->slots) {
                if (job->decoded && slot->claimed < slot->cells) {
                    return {job.get(), slot.get(), slot->claimed++};
                }
            }
        }
        return {};
    }

    Claim claim() noexcept {
        std::unique_lock lock = crew_.lock();
        Claim found;
        crew_.await_work(lock, [&] {
            found = find_work();
            return found.job != nullptr;
        });
        return found;
    }

    void serve() noexcept {
        FieldWorkspace work;
        RecentPeak decoded;
        for (Claim claimed = claim(); claimed.job != nullptr; claimed = claim()) {
            if (claimed.slot == nullptr) {
                load(*claimed.job, claimed.number, work, decoded);
            } else {
                crop(*claimed.job, *claimed.slot, claimed.number, work);
            }
        }
    }

    void load(Job& job, std::uint64_t source, FieldWorkspace& work, RecentPeak& decoded) noexcept {
        constexpr std::uint64_t as_floats = sizeof(float);  // of samples of a byte
        job.field.load(source, work);
        decoded.note(job.field.bytes_of(source));
        work.trim(decoded.worth(as_floats));
        bool all = false;
        {
            const std::unique_lock lock = crew_.lock();
            all = --job.unfinished == 0;
        }
        if (all) {
            job.field.complete();
            {
                const std::unique_lock lock = crew_.lock();
                job.decoded = true;
            }
            crew_.tell_threads();
            crew_.tell_callers();
        }
    }

    void crop(const Job& job, Slot& slot, std::uint64_t place, FieldWorkspace& work) noexcept {
        std::call_once(slot.framed, [&] { frame(job, slot); });
        if (slot.buffer != nullptr) {
            fill_place(job, slot, place, work);
        }
        bool complete = false;
        {
            const std::unique_lock lock = crew_.lock();
            complete = --slot.unfinished == 0;
        }
        if (complete) {
            crew_.tell_callers();
        }
    }

    [[nodiscard]] bool raw() const noexcept { return plan_.crops.scaling.scale == CropScale::none; }

    [[nodiscard]] SampleType type_of(const Job& job) const noexcept {
        return raw() && job.field.status().ok() ? job.field.planes().type : SampleType::f32;
    }

    // Whether the number of channels is that of a file, and nobody asked for so many.
    [[nodiscard]] bool is_channels_of_file(const Job& job) const noexcept {
        const std::vector<FieldSource>& sources = job.plan.sources;
        return plan_.channels == 0 && sources.size() == 1 && job.field.status().ok() &&
               (plan_.decoded || !sources.front().planes.has_value());
    }

    // A field that failed has the channels that it should have. Where the batch cannot be had, its cells fail and it
    // has no channels.
    void frame(const Job& job, Slot& slot) const noexcept {
        const auto files = static_cast<std::uint32_t>(job.plan.sources.size());
        const std::uint32_t expected = plan_.channels != 0 ? plan_.channels : files;
        const std::uint32_t side = raw() || plan_.how.size == 0 ? plan_.crops.size : plan_.how.size;
        slot.frame = {job.field.status().ok() ? job.field.planes().channels : expected, side, side};
        Status status;
        if (is_channels_of_file(job) && !is_affordable(slot.frame, slot.cells, plan_.limits)) {
            status = failure(Code::limit,
                             raw() ? "{} crops of {} channels, as this file has, are too much for one batch: cut fewer "
                                     "at once"
                                   : "{} crops of {} channels, as this file has, are too much for one batch: give mean "
                                     "and std, or load fewer at once")
                         .with(static_cast<std::int64_t>(slot.cells), slot.frame.channels);
        } else {
            slot.buffer = lend(job, slot);
            status = slot.buffer != nullptr ? success() : out_of_memory();
        }
        if (!status.ok()) {
            std::ranges::fill(slot.statuses, status);
            slot.frame.channels = 0;
            slot.buffer = lend(job, slot);
        }
    }

    // Null where memory is short.
    [[nodiscard]] std::shared_ptr<Buffer> lend(const Job& job, const Slot& slot) const noexcept {
        std::uint64_t bytes = 0;
        if (!multiply(values_of(slot.frame), slot.cells, bytes) ||
            !multiply(bytes, sample_bytes(type_of(job)), bytes)) {
            return nullptr;
        }
        try {
            return batches_->lend(bytes);
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
    }

    void fill_place(const Job& job, Slot& slot, std::uint64_t place, FieldWorkspace& work) noexcept {
        const std::uint64_t values = values_of(slot.frame);
        std::uint8_t* out = slot.buffer->data() + place * values * sample_bytes(type_of(job));
        Status& status = slot.statuses[place];  // not success where the whole batch failed
        status = status.ok() ? job.field.status() : status;
        if (status.ok()) {
            bool touches = false;
            const CropJob crop{job.field, plan_.crops, plan_.how, slot.frame};
            status = crop_cell(crop, slot.first + place, work, touches, out);
            slot.touches_edge[place] = touches ? 1 : 0;
        }
        if (status.ok()) {
            return;
        }
        if (raw()) {
            std::fill(out, out + values * sample_bytes(type_of(job)), std::uint8_t{0});
        } else {
            auto* row = reinterpret_cast<float*>(out);
            std::fill(row, row + values, std::numeric_limits<float>::quiet_NaN());
        }
    }

    void take_front(LoadedCrops& batch) {
        Job& job = *jobs_.front();
        Slot& slot = *job.slots.front();
        if (slot.cells == 0) {
            frame(job, slot);
        }
        const bool last = job.opened == job.batches && job.slots.size() == 1;
        batch = {std::move(slot.buffer),
                 slot.frame,
                 type_of(job),
                 std::move(slot.statuses),
                 std::move(slot.touches_edge),
                 slot.first,
                 last,
                 job.field.status(),
                 job.field.culprit(),
                 job.field.status().ok() ? job.field.bounds() : std::vector<Bounds>{}};
        job.slots.pop_front();
        --open_;
        if (last) {
            jobs_.pop_front();
        }
    }

    CropPlan plan_;
    std::shared_ptr<BufferPool> fields_;
    std::shared_ptr<BufferPool> batches_;

    std::deque<std::unique_ptr<Job>> jobs_;  // in order; the front one is the next to be handed out
    std::uint64_t open_ = 0;                 // batches that have a slot
    Crew crew_;                              // whose lock guards both; ends before them
};

CropStream::CropStream(CropPlan plan) : work_(std::make_unique<Work>(std::move(plan))) {
    work_->start();
}

CropStream::~CropStream() {
    work_->stop();
}

void CropStream::push(FieldPlan field) {
    work_->push(std::move(field));
}

CropStream::Next CropStream::next(std::chrono::milliseconds patience, LoadedCrops& batch) {
    return work_->next(patience, batch);
}

void CropStream::stop() noexcept {
    work_->stop();
}

}  // namespace chammi
