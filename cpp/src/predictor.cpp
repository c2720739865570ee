#include "predictor.hpp"

#include <algorithm>
#include <cstring>

#include "chammi/kernels.hpp"

namespace chammi::tiff {
namespace {

template <typename T>
T get(const std::uint8_t* from) noexcept {
    T value = 0;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <typename T>
void integrate(Bytes row, std::size_t step) noexcept {
    for (std::size_t at = step * sizeof(T); at + sizeof(T) <= row.size(); at += sizeof(T)) {
        const T sum = get<T>(row.data() + at) + get<T>(row.data() + at - step * sizeof(T));
        std::memcpy(row.data() + at, &sum, sizeof sum);
    }
}

}  // namespace

void swap_samples(Bytes samples, std::uint32_t sample) noexcept {
    if (sample == 2) {
        kernels().swap_u16(samples.data(), samples.size() / 2);
        return;
    }
    for (std::size_t at = 0; at + sample <= samples.size(); at += sample) {
        std::reverse(samples.data() + at, samples.data() + at + sample);
    }
}

void undo_differences(Bytes row, std::uint32_t sample, std::uint32_t step) noexcept {
    switch (sample) {
        case 1:
            kernels().integrate_u8(row.data(), row.size(), step);
            break;
        case 2:
            kernels().integrate_u16(row.data(), row.size() / 2, step);
            break;
        case 4:
            integrate<std::uint32_t>(row, step);
            break;
        default:
            integrate<std::uint64_t>(row, step);
            break;
    }
}

void undo_float_differences(Bytes row, std::uint32_t sample, std::uint32_t step, Bytes scratch) noexcept {
    kernels().integrate_u8(row.data(), row.size(), step);
    std::memcpy(scratch.data(), row.data(), row.size());
    const std::size_t values = row.size() / sample;
    for (std::uint32_t byte = 0; byte < sample; ++byte) {
        const std::uint8_t* from = scratch.data() + byte * values;
        std::uint8_t* to = row.data() + (native_order == ByteOrder::little ? sample - 1 - byte : byte);
        for (std::size_t i = 0; i < values; ++i) {
            to[i * sample] = from[i];
        }
    }
}

void reverse_bits(ConstBytes from, Bytes out) noexcept {
    for (std::size_t i = 0; i < from.size(); ++i) {
        unsigned byte = from[i];
        byte = (byte & 0x0FU) << 4U | byte >> 4U;
        byte = (byte & 0x33U) << 2U | (byte & 0xCCU) >> 2U;
        out[i] = static_cast<std::uint8_t>((byte & 0x55U) << 1U | (byte & 0xAAU) >> 1U);
    }
}

}  // namespace chammi::tiff
