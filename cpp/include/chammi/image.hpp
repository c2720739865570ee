#pragma once

#include <cstdint>

#include "chammi/bytes.hpp"

namespace chammi {

enum class Format : std::uint8_t { png, tiff };
enum class SampleType : std::uint8_t { u8, u16 };
enum class Compression : std::uint8_t { none, lzw, deflate, packbits, zstd };

constexpr std::uint32_t sample_bytes(SampleType type) noexcept {
    return type == SampleType::u8 ? 1 : 2;
}

/// What a file's header says about one of its images.
struct ImageInfo {
    Format format = Format::png;
    SampleType type = SampleType::u8;
    Compression compression = Compression::none;
    ByteOrder order = ByteOrder::little;  // of the samples in the file
    std::uint32_t width = 0;
    std::uint32_t height = 0;
    std::uint32_t samples = 1;
    std::uint32_t pages = 1;
    std::uint32_t rows_per_strip = 0;  // TIFF: at most height; PNG: height
    std::uint16_t predictor = 1;       // TIFF: 1 none, 2 horizontal differences; PNG: 1
    std::uint16_t photometric = 1;     // TIFF's tag; PNG: 1 gray, 2 RGB
    bool planar = false;               // TIFF: samples stored plane by plane (decoded to (H, W, S) all the same)
    bool inverted = false;             // 8-bit TIFF where 0 means white: decoding turned it round
};

/// Bounds on what a header may ask for.
struct Limits {
    std::uint64_t pixels = std::uint64_t{1} << 28U;  // width * height * samples, times pages where all are read
};

/// Bytes of one decoded image: (height, width, samples), native byte order. Fits once limits were checked.
constexpr std::uint64_t row_bytes(const ImageInfo& info) noexcept {
    return std::uint64_t{info.width} * info.samples * sample_bytes(info.type);
}
constexpr std::uint64_t image_bytes(const ImageInfo& info) noexcept {
    return row_bytes(info) * info.height;
}

}  // namespace chammi
