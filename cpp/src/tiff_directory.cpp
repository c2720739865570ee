#include <algorithm>
#include <array>
#include <limits>

#include "tiff_tags.hpp"

namespace chammi::tiff {
namespace {

struct CompressionName {
    std::uint64_t code;
    const char* refusal;
};
constexpr std::array refused_compressions{
    CompressionName{2, "TIFF compression {} (CCITT modified Huffman) is not supported"},
    CompressionName{3, "TIFF compression {} (CCITT group 3 fax) is not supported"},
    CompressionName{4, "TIFF compression {} (CCITT group 4 fax) is not supported"},
    CompressionName{6, "TIFF compression {} (old-style JPEG) is not supported"},
    CompressionName{7, "TIFF compression {} (JPEG) is not supported"},
    CompressionName{32809, "TIFF compression {} (ThunderScan) is not supported"},
    CompressionName{33003, "TIFF compression {} (JPEG 2000) is not supported"},
    CompressionName{33005, "TIFF compression {} (JPEG 2000) is not supported"},
    CompressionName{34676, "TIFF compression {} (SGI LogL) is not supported"},
    CompressionName{34677, "TIFF compression {} (SGI LogLuv) is not supported"},
    CompressionName{34712, "TIFF compression {} (JPEG 2000) is not supported"},
    CompressionName{34887, "TIFF compression {} (LERC) is not supported"},
    CompressionName{34925, "TIFF compression {} (LZMA) is not supported"},
    CompressionName{50001, "TIFF compression {} (WebP) is not supported"},
    CompressionName{50002, "TIFF compression {} (JPEG XL) is not supported"},
    CompressionName{52546, "TIFF compression {} (JPEG XL) is not supported"},
};

// All values of a per-sample tag are equal in the images read here; `common` is that value. Values beyond the samples
// mean nothing, and may be as many as the file has bytes.
Status common_value(ConstBytes in, ByteOrder order, const Field& field, std::uint64_t samples, const char* differing,
                    std::uint64_t& common) noexcept {
    if (field.type == 0) {
        return success();
    }
    common = value_at(in, order, field, 0);
    for (std::uint64_t i = 1; i < std::min(field.count, samples); ++i) {
        if (value_at(in, order, field, i) != common) {
            return failure(Code::unsupported, differing, field.offset);
        }
    }
    return success();
}

Status interpret_compression(std::uint64_t code, std::uint64_t at, Compression& compression) noexcept {
    switch (code) {
        case 1:
            compression = Compression::none;
            return success();
        case 5:
            compression = Compression::lzw;
            return success();
        case 8:
        case 32946:
            compression = Compression::deflate;
            return success();
        case 32773:
            compression = Compression::packbits;
            return success();
        case 50000:
            compression = Compression::zstd;
            return success();
        default:
            break;
    }
    const auto* const known = std::ranges::find(refused_compressions, code, &CompressionName::code);
    const bool named = known != refused_compressions.end();
    return failure(Code::unsupported, named ? known->refusal : "TIFF compression {} is not supported", at)
        .with(static_cast<std::int64_t>(code));
}

struct Kind {
    std::uint64_t format;  // 1 unsigned, 2 signed, 3 floating point
    std::uint64_t bits;
    SampleType type;
};
constexpr std::array kinds{
    Kind{1, 1, SampleType::u8},   Kind{1, 8, SampleType::u8},   Kind{1, 16, SampleType::u16},
    Kind{1, 32, SampleType::u32}, Kind{1, 64, SampleType::u64}, Kind{2, 8, SampleType::i8},
    Kind{2, 16, SampleType::i16}, Kind{2, 32, SampleType::i32}, Kind{2, 64, SampleType::i64},
    Kind{3, 16, SampleType::f16}, Kind{3, 32, SampleType::f32}, Kind{3, 64, SampleType::f64},
};

Status interpret_samples(ConstBytes in, ByteOrder order, const Tags& tags, std::uint64_t at, ImageInfo& info) noexcept {
    std::uint64_t bits = 1;
    std::uint64_t format = 1;
    if (const Status status = common_value(in, order, tags.bits, tags.samples,
                                           "TIFF samples of differing bit widths are not supported", bits);
        !status.ok()) {
        return status;
    }
    if (const Status status = common_value(in, order, tags.sample_format, tags.samples,
                                           "TIFF samples of differing formats are not supported", format);
        !status.ok()) {
        return status;
    }
    format = format == 4 ? 1 : format;  // 4: "undefined"
    const auto* const known =
        std::ranges::find_if(kinds, [=](const Kind& kind) { return kind.format == format && kind.bits == bits; });
    const bool between = format == 1 && bits > 8 && bits < 16;  // cameras of 10, 12 and 14 bits
    if (known == kinds.end() && !between) {
        return failure(Code::unsupported,
                       format == 1 ? "TIFF with {}-bit samples is not supported"
                                   : "TIFF with {}-bit samples of format {} (2 is signed, 3 floating point, 5 and 6 "
                                     "complex) is not supported",
                       at)
            .with(static_cast<std::int64_t>(bits), static_cast<std::int64_t>(format));
    }
    info.type = between ? SampleType::u16 : known->type;
    info.bits = static_cast<std::uint16_t>(bits);
    return success();
}

Status interpret_predictor(const Tags& tags, std::uint64_t at, ImageInfo& info) noexcept {
    // libtiff leaves the tag out of account for PackBits as well; but the only known writer of it, tifffile, means it.
    if (info.compression == Compression::none || tags.predictor == 1) {
        return success();
    }
    const bool floats = info.type == SampleType::f16 || info.type == SampleType::f32 || info.type == SampleType::f64;
    const bool known = tags.predictor == 2 ? info.bits % 8 == 0 : tags.predictor == 3 && floats;
    if (!known) {
        return failure(Code::unsupported, "TIFF predictor {} for {}-bit samples is not supported", at)
            .with(static_cast<std::int64_t>(tags.predictor), info.bits);
    }
    info.predictor = static_cast<std::uint16_t>(tags.predictor);
    return success();
}

Status interpret_layout(const Tags& tags, std::uint64_t at, Page& page) noexcept {
    ImageInfo& info = page.info;
    if (tags.fill_order != 1 && tags.fill_order != 2) {
        return failure(Code::corrupt, "TIFF fill order {} does not exist", at)
            .with(static_cast<std::int64_t>(tags.fill_order));
    }
    if (tags.planar != 1 && tags.planar != 2) {
        return failure(Code::corrupt, "TIFF planar configuration {} does not exist", at)
            .with(static_cast<std::int64_t>(tags.planar));
    }
    // 0 and 1 are gray, 2 RGB, 3 indices into a palette (given as they are), 5 inks.
    if (tags.photometric > 3 && tags.photometric != 5) {
        return failure(Code::unsupported, "TIFF photometric interpretation {} is not supported", at)
            .with(static_cast<std::int64_t>(tags.photometric));
    }
    if (tags.depth != 1) {
        return failure(Code::unsupported, "TIFF with volumes of depth {} is not supported", at)
            .with(static_cast<std::int64_t>(tags.depth));
    }
    page.reversed_bits = tags.fill_order == 2;
    info.planar = tags.planar == 2 && tags.samples > 1;
    info.photometric = static_cast<std::uint16_t>(tags.photometric);
    info.inverted = tags.photometric == 0 && info.type == SampleType::u8;
    info.expanded = info.bits == 1 && tags.photometric != 3;
    return success();
}

Status interpret_size(const Tags& tags, const Limits& limits, std::uint64_t at, ImageInfo& info) noexcept {
    if (tags.width == 0 || tags.height == 0 || tags.samples == 0) {
        return failure(Code::corrupt, "TIFF of width {}, height {} and {} samples holds no image", at)
            .with(static_cast<std::int64_t>(tags.width), static_cast<std::int64_t>(tags.height),
                  static_cast<std::int64_t>(tags.samples));
    }
    constexpr std::uint64_t most = std::numeric_limits<std::int32_t>::max();
    std::uint64_t values = 0;
    if (tags.width > most || tags.height > most || tags.samples > most ||
        !multiply(tags.width * tags.height, tags.samples, values) || !limits.allow(values)) {
        return failure(Code::limit, "an image of {} x {} pixels with {} samples exceeds the pixel limit", at)
            .with(static_cast<std::int64_t>(tags.height), static_cast<std::int64_t>(tags.width),
                  static_cast<std::int64_t>(tags.samples));
    }
    if (tags.samples > std::numeric_limits<std::uint16_t>::max()) {
        return failure(Code::corrupt, "TIFF with {} samples per pixel, more than the format can count", at)
            .with(static_cast<std::int64_t>(tags.samples));
    }
    info.width = static_cast<std::uint32_t>(tags.width);
    info.height = static_cast<std::uint32_t>(tags.height);
    info.samples = static_cast<std::uint32_t>(tags.samples);
    return success();
}

Status size_strips(const Tags& tags, std::uint64_t at, Page& page) noexcept {
    ImageInfo& info = page.info;
    if (tags.rows_per_strip == 0) {
        return failure(Code::corrupt, "TIFF with 0 rows per strip holds no image", at);
    }
    info.rows_per_strip = static_cast<std::uint32_t>(std::min<std::uint64_t>(tags.rows_per_strip, info.height));
    page.segment_height = info.rows_per_strip;
    page.segment_width = info.width;
    return success();
}

// A tile may be larger than its image, but not larger than any image.
Status size_tiles(const Tags& tags, const Limits& limits, std::uint64_t at, Page& page) noexcept {
    constexpr std::uint64_t most = std::numeric_limits<std::int32_t>::max();
    std::uint64_t values = 0;
    if (tags.tile_width == 0 || tags.tile_height == 0) {
        return failure(Code::corrupt, "TIFF with tiles of {} x {} pixels holds no image", at)
            .with(static_cast<std::int64_t>(tags.tile_height), static_cast<std::int64_t>(tags.tile_width));
    }
    if (tags.tile_width > most || tags.tile_height > most ||
        !multiply(tags.tile_width * tags.tile_height, page.info.planar ? 1 : page.info.samples, values) ||
        !limits.allow(values)) {
        return failure(Code::limit, "a tile of {} x {} pixels exceeds the pixel limit", at)
            .with(static_cast<std::int64_t>(tags.tile_height), static_cast<std::int64_t>(tags.tile_width));
    }
    page.info.tile_width = static_cast<std::uint32_t>(tags.tile_width);
    page.info.tile_height = static_cast<std::uint32_t>(tags.tile_height);
    page.segment_width = page.info.tile_width;
    page.segment_height = page.info.tile_height;
    return success();
}

constexpr std::uint64_t parts(std::uint64_t whole, std::uint64_t part) noexcept {
    return (whole + part - 1) / part;
}

Status interpret_segments(const Tags& tags, const Limits& limits, std::uint64_t at, Page& page) noexcept {
    const ImageInfo& info = page.info;
    const bool tiled = tags.tile_width != 0 || tags.tile_height != 0 || tags.tile_offsets.type != 0;
    if (const Status status = tiled ? size_tiles(tags, limits, at, page) : size_strips(tags, at, page); !status.ok()) {
        return status;
    }
    // Some writers give tiles the strips' tags.
    page.offsets = tags.tile_offsets.type != 0 && tiled ? tags.tile_offsets : tags.strip_offsets;
    page.byte_counts = tags.tile_byte_counts.type != 0 && tiled ? tags.tile_byte_counts : tags.strip_byte_counts;
    page.across = parts(info.width, page.segment_width);
    page.down = parts(info.height, page.segment_height);
    const std::uint64_t needed = page.across * page.down * (info.planar ? info.samples : 1);  // at most a value each
    if (page.offsets.count < needed) {
        return failure(Code::corrupt,
                       tiled ? "TIFF names {} tiles where its size needs {}"
                             : "TIFF names {} strips where its size needs {}",
                       at)
            .with(static_cast<std::int64_t>(page.offsets.count), static_cast<std::int64_t>(needed));
    }
    const bool counted = page.byte_counts.count >= needed;
    if (!counted && (page.byte_counts.type != 0 || info.compression != Compression::none)) {
        return failure(Code::corrupt,
                       tiled ? "TIFF gives the length of {} tiles where its size needs {}"
                             : "TIFF gives the length of {} strips where its size needs {}",
                       at)
            .with(static_cast<std::int64_t>(page.byte_counts.count), static_cast<std::int64_t>(needed));
    }
    return success();
}

// ImageJ writes the pages of a stack one behind the other, and one directory for all of them. Only where the file holds
// them are they believed in: the description outlives the stack in programs that copy it.
void interpret_stack(ConstBytes in, ByteOrder order, const Tags& tags, Page& page) noexcept {
    const ImageInfo& info = page.info;
    const bool plain =
        info.compression == Compression::none && info.samples == 1 && !page.tiled() && info.bits % 8 == 0;
    if (tags.images == 1 || !plain) {
        return;
    }
    const std::uint64_t strip = row_bytes(info) * info.rows_per_strip;
    const std::uint64_t first = value_at(in, order, page.offsets, 0);
    std::uint64_t length = 0;
    if (!multiply(image_bytes(info), tags.images, length) || !lies_within(first, length, in.size())) {
        return;
    }
    for (std::uint64_t i = 1; i < page.down; ++i) {
        if (value_at(in, order, page.offsets, i) != first + i * strip) {
            return;
        }
    }
    page.stack = tags.images;
}

}  // namespace

Status interpret(ConstBytes in, ByteOrder order, const Tags& tags, const Limits& limits, std::uint64_t offset,
                 Page& page) noexcept {
    page = Page{};
    ImageInfo& info = page.info;
    info.format = Format::tiff;
    info.order = order;
    Status status = interpret_compression(tags.compression, offset, info.compression);
    if (status.ok()) {
        status = interpret_samples(in, order, tags, offset, info);
    }
    if (status.ok()) {
        status = interpret_predictor(tags, offset, info);
    }
    if (status.ok()) {
        status = interpret_layout(tags, offset, page);
    }
    if (status.ok()) {
        status = interpret_size(tags, limits, offset, info);
    }
    if (status.ok()) {
        status = interpret_segments(tags, limits, offset, page);
    }
    if (status.ok()) {
        interpret_stack(in, order, tags, page);
    }
    return status;
}

}  // namespace chammi::tiff
