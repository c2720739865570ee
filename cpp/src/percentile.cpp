#include "chammi/percentile.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>

namespace chammi {
namespace {

constexpr std::size_t bins = std::size_t{1} << 16U;

// Neighbouring pixels are often equal: counting them into two tables spares the processor a wait for its own writes.
template <typename Key>
void count_keys(std::uint64_t count, Key key, std::uint32_t* counts) noexcept {
    std::fill(counts, counts + 2 * bins, 0U);
    std::uint32_t* odd = counts + bins;
    std::uint64_t i = 0;
    for (; i + 2 <= count; i += 2) {
        ++counts[key(i)];
        ++odd[key(i + 1)];
    }
    if (i < count) {
        ++counts[key(i)];
    }
    for (std::size_t bin = 0; bin < bins; ++bin) {
        counts[bin] += odd[bin];
    }
}

// The bin of the value of that rank; `rank` becomes that among the values of the bin.
std::size_t find_bin(const std::uint32_t* counts, std::uint64_t& rank) noexcept {
    std::size_t bin = 0;
    while (bin + 1 < bins && rank >= counts[bin]) {
        rank -= counts[bin];
        ++bin;
    }
    return bin;
}

template <typename T>
class WholeNumbers {
 public:
    WholeNumbers(const T* values, std::uint64_t count, std::uint32_t* counts) noexcept : counts_(counts) {
        count_keys(count, [values](std::uint64_t i) { return values[i]; }, counts);
    }

    double value_at(std::uint64_t rank) noexcept { return static_cast<double>(find_bin(counts_, rank)); }

 private:
    const std::uint32_t* counts_;
};

// Floats by the order of their bits: first by the upper half, and then by the lower half of those that share the upper.
class Floats {
 public:
    Floats(const float* values, std::uint64_t count, std::uint32_t* counts) noexcept
        : values_(values), count_(count), upper_(counts), lower_(counts + 2 * bins) {
        count_keys(count, [values](std::uint64_t i) { return key_of(values[i]) >> 16U; }, upper_);
    }

    double value_at(std::uint64_t rank) noexcept {
        const auto bin = static_cast<std::uint32_t>(find_bin(upper_, rank));
        if (!counted_ || bin != bin_) {
            count_lower(bin);
        }
        const auto key = (bin << 16U) | static_cast<std::uint32_t>(find_bin(lower_, rank));
        return static_cast<double>(std::bit_cast<float>((key & sign) != 0 ? key ^ sign : ~key));
    }

 private:
    static constexpr std::uint32_t sign = 0x80000000U;

    // Rises with the float.
    static std::uint32_t key_of(float value) noexcept {
        const auto bits = std::bit_cast<std::uint32_t>(value);
        return (bits & sign) != 0 ? ~bits : bits | sign;
    }

    void count_lower(std::uint32_t bin) noexcept {
        std::fill(lower_, lower_ + bins, 0U);
        for (std::uint64_t i = 0; i < count_; ++i) {
            const std::uint32_t key = key_of(values_[i]);
            if (key >> 16U == bin) {
                ++lower_[key & 0xFFFFU];
            }
        }
        bin_ = bin;
        counted_ = true;
    }

    const float* values_;
    std::uint64_t count_;
    std::uint32_t* upper_;
    std::uint32_t* lower_;
    std::uint32_t bin_ = 0;
    bool counted_ = false;
};

// As NumPy interpolates: from the nearer of the two samples.
template <typename Ordered>
double percentile(Ordered& ordered, std::uint64_t count, double percent) noexcept {
    const double place = static_cast<double>(count - 1) * (percent / 100.0);
    const auto rank = static_cast<std::uint64_t>(place);
    const double fraction = place - std::floor(place);
    const double below = ordered.value_at(std::min(rank, count - 1));
    const double above = ordered.value_at(std::min(rank + 1, count - 1));
    const double step = above - below;
    return fraction >= 0.5 ? above - step * (1.0 - fraction) : below + step * fraction;
}

template <typename Ordered, typename T>
bool find_both(const T* values, std::uint64_t count, const Bounds& percentiles, Buffer& counts,
               Bounds& found) noexcept {
    constexpr std::size_t tables = 3;
    if (!counts.resize(tables * bins * sizeof(std::uint32_t))) {
        return false;
    }
    Ordered ordered{values, count, counts.as<std::uint32_t>()};
    found = {percentile(ordered, count, percentiles.low), percentile(ordered, count, percentiles.high)};
    return true;
}

}  // namespace

bool find_percentiles(const std::uint8_t* values, std::uint64_t count, const Bounds& percentiles, Buffer& counts,
                      Bounds& found) noexcept {
    return find_both<WholeNumbers<std::uint8_t>>(values, count, percentiles, counts, found);
}

bool find_percentiles(const std::uint16_t* values, std::uint64_t count, const Bounds& percentiles, Buffer& counts,
                      Bounds& found) noexcept {
    return find_both<WholeNumbers<std::uint16_t>>(values, count, percentiles, counts, found);
}

bool find_percentiles(const float* values, std::uint64_t count, const Bounds& percentiles, Buffer& counts,
                      Bounds& found) noexcept {
    return find_both<Floats>(values, count, percentiles, counts, found);
}

}  // namespace chammi
