#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace chammi {

/// The threads of a stream and what they and its callers wait for. All that is waited for changes under one lock.
class Crew {
 public:
    Crew() = default;
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;
    Crew(Crew&&) = delete;
    Crew& operator=(Crew&&) = delete;
    ~Crew() { stop(); }

    /// Starts threads that run `serve`, which returns once stopped() holds. A system that grants fewer gives a slower
    /// stream; one that grants none is an error.
    template <typename Serve>
    void start(std::uint32_t threads, const Serve& serve) {
        threads = std::max(threads, 1U);
        threads_.reserve(threads);
        for (std::uint32_t i = 0; i < threads; ++i) {
            try {
                threads_.emplace_back(serve);
            } catch (const std::system_error&) {
                if (threads_.empty()) {
                    throw;
                }
                break;
            }
        }
    }

    /// Ends all waiting and joins the threads: each finishes what it has in hand. May be called at any time and more
    /// than once.
    void stop() noexcept {
        {
            const std::scoped_lock lock{mutex_};
            stopped_ = true;
        }
        tell_threads();
        tell_callers();
        const std::scoped_lock joining{join_mutex_};
        for (std::thread& thread : threads_) {
            if (thread.joinable()) {
                thread.join();
            }
        }
    }

    [[nodiscard]] bool stopped() const noexcept { return stopped_; }
    [[nodiscard]] std::unique_lock<std::mutex> lock() { return std::unique_lock{mutex_}; }

    /// Waits until there is work, or the crew was stopped.
    template <typename Condition>
    void await_work(std::unique_lock<std::mutex>& lock, Condition there) {
        work_available_.wait(lock, [&] { return stopped_ || there(); });
    }
    /// Waits for at most `patience`; whether the condition holds, or the crew was stopped.
    template <typename Condition>
    bool await_result(std::unique_lock<std::mutex>& lock, std::chrono::milliseconds patience, Condition there) {
        return result_available_.wait_for(lock, patience, [&] { return stopped_ || there(); });
    }

    void tell_threads() noexcept { work_available_.notify_all(); }
    void tell_callers() noexcept { result_available_.notify_all(); }

 private:
    std::mutex mutex_;
    std::condition_variable work_available_;
    std::condition_variable result_available_;
    std::atomic<bool> stopped_ = false;  // set under the lock
    std::mutex join_mutex_;
    std::vector<std::thread> threads_;
};

}  // namespace chammi
