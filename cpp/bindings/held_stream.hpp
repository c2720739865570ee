#pragma once

#include <unistd.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings.hpp"

namespace chammi::bindings {

/// A stream as Python holds it: neither its end nor waiting for it, both of which may take until its threads are done
/// with what they have in hand, is done with the GIL held. A fork leaves the threads behind: the child can neither use
/// nor end the stream, and lets go of it.
template <typename Stream>
class HeldStream {
 public:
    /// `name` says in messages what the stream is of.
    HeldStream(std::unique_ptr<Stream> stream, const char* name) : stream_(std::move(stream)), name_(name) {}
    HeldStream(const HeldStream&) = delete;
    HeldStream& operator=(const HeldStream&) = delete;
    HeldStream(HeldStream&&) = delete;
    HeldStream& operator=(HeldStream&&) = delete;
    ~HeldStream() {  // NOLINT(bugprone-exception-escape) - neither joining threads nor waiting for the lock throws
        if (forked()) {
            static_cast<void>(stream_.release());  // NOLINT(bugprone-unused-return-value) - left as it is
            return;
        }
        const py::gil_scoped_release unlocked;
        stream_.reset();
    }

    /// Waits for the next batch; false at the end.
    template <typename Batch>
    bool next(Batch& batch) {
        constexpr std::chrono::milliseconds patience{50};  // until Python is asked whether it was interrupted
        refuse_forked();
        for (;;) {
            auto next = Stream::Next::pending;
            {
                const py::gil_scoped_release unlocked;
                next = stream_->next(patience, batch);
            }
            if (next != Stream::Next::pending) {
                return next == Stream::Next::ready;
            }
            if (PyErr_CheckSignals() != 0) {
                throw py::error_already_set();
            }
        }
    }

    /// The stream itself, for what does not wait.
    Stream& get() {
        refuse_forked();
        return *stream_;
    }

    void close() {
        if (forked()) {
            return;
        }
        const py::gil_scoped_release unlocked;
        stream_->stop();
    }

 private:
    [[nodiscard]] bool forked() const noexcept { return ::getpid() != owner_; }

    void refuse_forked() const {
        if (forked()) {
            throw std::runtime_error(std::string{"a stream of "} + name_ + " cannot be used in a forked process");
        }
    }

    std::unique_ptr<Stream> stream_;
    const char* name_;
    ::pid_t owner_ = ::getpid();
};

}  // namespace chammi::bindings
