#include <array>
#include <atomic>
#include <string_view>

#include "chammi/kernels.hpp"
#include "kernels/tables.hpp"

namespace chammi {
namespace {

struct Candidate {
    const Kernels* table;
    bool present;
};

// From the best to the plainest.
auto candidates() noexcept {
#ifdef CHAMMI_X86_64
    const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    // The last one is not used, but tells processors on which wide vectors do not lower the clock.
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                        __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
                        __builtin_cpu_supports("avx512vbmi2") != 0;
    return std::array{Candidate{&avx512_kernels, avx512}, Candidate{&avx2_kernels, avx2},
                      Candidate{&scalar_kernels, true}};
#else
    return std::array{Candidate{&scalar_kernels, true}};
#endif
}

const Kernels* best() noexcept {
    for (const Candidate& candidate : candidates()) {
        if (candidate.present) {
            return candidate.table;
        }
    }
    return &scalar_kernels;
}

std::atomic<const Kernels*>& in_use() noexcept {
    static std::atomic<const Kernels*> table{best()};
    return table;
}

}  // namespace

const Kernels& kernels() noexcept {
    return *in_use().load(std::memory_order_relaxed);
}

IsaChoice use_isa(const char* name) noexcept {
    for (const Candidate& candidate : candidates()) {
        if (std::string_view{name} == candidate.table->name) {
            if (!candidate.present) {
                return IsaChoice::absent;
            }
            in_use().store(candidate.table, std::memory_order_relaxed);
            return IsaChoice::chosen;
        }
    }
    return IsaChoice::unknown;
}

}  // namespace chammi
