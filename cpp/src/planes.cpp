#include <bit>
#include <cstring>

#include "chammi/decode.hpp"

namespace chammi {
namespace {

// IEEE 754's 16-bit format. The exponent is rebased by a multiplication, which treats subnormal numbers rightly too.
float from_half(std::uint16_t half) noexcept {
    const std::uint32_t sign = (half & 0x8000U) << 16U;
    const std::uint32_t magnitude = half & 0x7FFFU;
    if (magnitude >= 0x7C00U) {  // infinite or not a number
        return std::bit_cast<float>(sign | 0x7F800000U | ((magnitude & 0x3FFU) << 13U));
    }
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude << 13U) * 0x1p112F));
}

struct Half {
    std::uint16_t bits;
    explicit operator float() const noexcept { return from_half(bits); }
};

template <typename T>
void convert(const Planes& planes, float* out) noexcept {
    const auto* samples = reinterpret_cast<const T*>(planes.data);
    for (std::uint32_t channel = 0; channel < planes.channels; ++channel) {
        const T* from = samples + channel * planes.channel_stride;
        for (std::uint32_t y = 0; y < planes.height; ++y) {
            for (std::uint32_t x = 0; x < planes.width; ++x) {
                out[x] = static_cast<float>(from[x]);
            }
            out += planes.width;
            from += planes.row_stride;
        }
    }
}

void convert_any(const Planes& planes, float* out) noexcept {
    switch (planes.type) {
        case SampleType::u8:
            convert<std::uint8_t>(planes, out);
            break;
        case SampleType::u16:
            convert<std::uint16_t>(planes, out);
            break;
        case SampleType::u32:
            convert<std::uint32_t>(planes, out);
            break;
        case SampleType::u64:
            convert<std::uint64_t>(planes, out);
            break;
        case SampleType::i8:
            convert<std::int8_t>(planes, out);
            break;
        case SampleType::i16:
            convert<std::int16_t>(planes, out);
            break;
        case SampleType::i32:
            convert<std::int32_t>(planes, out);
            break;
        case SampleType::i64:
            convert<std::int64_t>(planes, out);
            break;
        case SampleType::f16:
            convert<Half>(planes, out);
            break;
        case SampleType::f32:
            convert<float>(planes, out);
            break;
        case SampleType::f64:
            convert<double>(planes, out);
            break;
    }
}

}  // namespace

Status to_float(const Planes& planes, Workspace& work, Planes& floats) noexcept {
    const std::uint64_t pixels = std::uint64_t{planes.height} * planes.width;
    std::uint64_t bytes = 0;
    if (!multiply(pixels, planes.channels, bytes) || !multiply(bytes, sizeof(float), bytes) ||
        !work.floats.resize(bytes)) {
        return out_of_memory();
    }
    convert_any(planes, work.floats.as<float>());
    floats = {work.floats.data(), SampleType::f32, planes.channels, planes.height, planes.width, pixels, planes.width};
    return success();
}

void gather_planes(const Planes& planes, std::uint8_t* out) noexcept {
    const std::size_t each = sample_bytes(planes.type);
    const std::size_t row = planes.width * each;
    for (std::uint32_t channel = 0; channel < planes.channels; ++channel) {
        const std::uint8_t* from = planes.data + channel * planes.channel_stride * each;
        for (std::uint32_t y = 0; y < planes.height; ++y) {
            std::memcpy(out, from, row);
            out += row;
            from += planes.row_stride * each;
        }
    }
}

}  // namespace chammi
