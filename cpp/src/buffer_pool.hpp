#pragma once

#include <unistd.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "chammi/buffer.hpp"
#include "recent_peak.hpp"

namespace chammi {

/// Keeps the memory of batches that nobody holds any more: fresh pages cost more than what is written to them. Memory
/// that is far larger than what was lent lately goes back to the system.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
    explicit BufferPool(std::size_t most) : most_(most) { spare_.reserve(most); }

    /// A buffer of `size` bytes, or null where memory is short.
    std::shared_ptr<Buffer> lend(std::uint64_t size) {
        auto buffer = std::make_unique<Buffer>(take(size));
        if (!buffer->resize(size)) {
            return nullptr;
        }
        return {buffer.release(), [pool = weak_from_this()](Buffer* returned) {
                    const std::unique_ptr<Buffer> owned{returned};
                    if (const auto home = pool.lock(); home != nullptr && home->owner_ == ::getpid()) {
                        home->put_back(std::move(*owned));
                    }
                }};
    }

 private:
    Buffer take(std::uint64_t size) {
        const std::scoped_lock lock{mutex_};
        lent_.note(size);
        for (Buffer& spare : spare_) {
            spare.trim(lent_.worth(2));
        }
        std::erase_if(spare_, [](const Buffer& spare) { return spare.capacity() == 0; });  // full ones come first
        if (spare_.empty()) {
            return {};
        }
        Buffer buffer = std::move(spare_.back());
        spare_.pop_back();
        return buffer;
    }

    void put_back(Buffer buffer) noexcept {
        const std::scoped_lock lock{mutex_};
        if (spare_.size() < most_) {
            spare_.push_back(std::move(buffer));  // within the reserved capacity
        }
    }

    ::pid_t owner_ = ::getpid();  // a fork may leave the lock in its child as another thread held it
    std::mutex mutex_;
    std::vector<Buffer> spare_;
    std::size_t most_;
    RecentPeak lent_;
};

}  // namespace chammi
