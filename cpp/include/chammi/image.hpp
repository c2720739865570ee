#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "chammi/bytes.hpp"

namespace chammi {

enum class Format : std::uint8_t { png, tiff };
enum class SampleType : std::uint8_t { u8, u16, u32, u64, i8, i16, i32, i64, f16, f32, f64 };
enum class Compression : std::uint8_t { none, lzw, deflate, packbits, zstd };

constexpr std::uint32_t sample_bytes(SampleType type) noexcept {
    constexpr std::array<std::uint8_t, 11> bytes{1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8};
    return bytes[static_cast<std::size_t>(type)];
}

/// The sample that becomes 1 where no range is given: the largest whole number of the type; floats stay as they are.
constexpr double full_scale(SampleType type) noexcept {
    constexpr std::array<double, 11> most{0xFFp0,       0xFFFFp0, 0xFFFFFFFFp0, 0x1p64, 0x7Fp0, 0x7FFFp0,
                                          0x7FFFFFFFp0, 0x1p63,   1.0,          1.0,    1.0};
    return most[static_cast<std::size_t>(type)];
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
    std::uint32_t rows_per_strip = 0;  // TIFF: at most height; PNG: height; 0 where there are tiles
    std::uint32_t tile_height = 0;     // 0 where there are strips
    std::uint32_t tile_width = 0;      // ... likewise
    std::uint16_t bits = 8;            // of a sample in the file
    std::uint16_t predictor = 1;       // TIFF: 1 none, 2 horizontal differences, 3 those of floats; PNG: 1
    std::uint16_t photometric = 1;     // TIFF's tag; PNG: 1 gray, 2 RGB, 3 palette
    bool planar = false;               // TIFF: samples stored plane by plane (decoded to (H, W, S) all the same)
    bool inverted = false;             // 1- and 8-bit TIFF where 0 means white: decoding turned it round
    bool interlaced = false;           // PNG
    bool expanded = false;             // PNG: palette to colours, or a transparent colour to alpha; both formats: fewer
                                       // than 8 bits of gray to 0..255
};

/// Bounds on what a header may ask for.
struct Limits {
    std::uint64_t pixels = std::uint64_t{1} << 28U;  // width * height * samples, times pages where all are read

    /// True where so many values are allowed, and their bytes can be counted.
    [[nodiscard]] constexpr bool allow(std::uint64_t values) const noexcept {
        return values <= pixels && values <= std::uint64_t{1} << 56U;
    }
};

/// Bytes of one decoded image: (height, width, samples), native byte order. Fits once limits were checked.
constexpr std::uint64_t row_bytes(const ImageInfo& info) noexcept {
    return std::uint64_t{info.width} * info.samples * sample_bytes(info.type);
}
constexpr std::uint64_t image_bytes(const ImageInfo& info) noexcept {
    return row_bytes(info) * info.height;
}

}  // namespace chammi
