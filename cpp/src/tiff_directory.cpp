#include <algorithm>
#include <array>
#include <limits>

#include "chammi/tiff.hpp"

namespace chammi::tiff {
namespace {

constexpr std::size_t entry_bytes = 12;

enum class Tag : std::uint16_t {
    width = 256,
    height = 257,
    bits = 258,
    compression = 259,
    photometric = 262,
    fill_order = 266,
    strip_offsets = 273,
    samples = 277,
    rows_per_strip = 278,
    strip_byte_counts = 279,
    planar = 284,
    predictor = 317,
    tile_width = 322,
    sample_format = 339,
};

// Bytes of one value of a field type that can hold a whole number, 0 for all others.
constexpr std::uint64_t value_bytes(std::uint16_t type) noexcept {
    switch (type) {
        case 1:
            return 1;
        case 3:
            return 2;
        case 4:
        case 13:
            return 4;
        default:
            return 0;
    }
}

// The raw tags of a directory. Scalars hold their first value, or the format's default.
struct Tags {
    Field bits;
    Field sample_format;
    Field strip_offsets;
    Field strip_byte_counts;
    std::uint64_t width = 0;
    std::uint64_t height = 0;
    std::uint64_t compression = 1;
    std::uint64_t photometric = 1;
    std::uint64_t fill_order = 1;
    std::uint64_t samples = 1;
    std::uint64_t rows_per_strip = std::numeric_limits<std::uint32_t>::max();
    std::uint64_t planar = 1;
    std::uint64_t predictor = 1;
    bool tiled = false;
};

struct Scalar {
    Tag tag;
    std::uint64_t Tags::* member;
};
constexpr std::array scalars{
    Scalar{Tag::width, &Tags::width},
    Scalar{Tag::height, &Tags::height},
    Scalar{Tag::compression, &Tags::compression},
    Scalar{Tag::photometric, &Tags::photometric},
    Scalar{Tag::fill_order, &Tags::fill_order},
    Scalar{Tag::samples, &Tags::samples},
    Scalar{Tag::rows_per_strip, &Tags::rows_per_strip},
    Scalar{Tag::planar, &Tags::planar},
    Scalar{Tag::predictor, &Tags::predictor},
};

struct Listed {
    Tag tag;
    Field Tags::* member;
};
constexpr std::array lists{
    Listed{Tag::bits, &Tags::bits},
    Listed{Tag::sample_format, &Tags::sample_format},
    Listed{Tag::strip_offsets, &Tags::strip_offsets},
    Listed{Tag::strip_byte_counts, &Tags::strip_byte_counts},
};

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

std::uint64_t value_at(ConstBytes in, ByteOrder order, const Field& field, std::uint64_t index) noexcept {
    const std::uint8_t* from = in.data() + field.offset + index * value_bytes(field.type);
    switch (field.type) {
        case 1:
            return *from;
        case 3:
            return load_u16(from, order);
        default:
            return load_u32(from, order);
    }
}

Status locate(ConstBytes in, ByteOrder order, std::uint64_t entry, Field& field) noexcept {
    const std::uint8_t* from = in.data() + entry;
    field.type = load_u16(from + 2, order);
    field.count = load_u32(from + 4, order);
    const std::uint64_t each = value_bytes(field.type);
    const std::int64_t tag = load_u16(from, order);
    if (each == 0 || field.count == 0) {
        return failure(Code::corrupt, "TIFF tag {} has field type {} and {} values", entry)
            .with(tag, field.type, static_cast<std::int64_t>(field.count));
    }
    const std::uint64_t length = field.count * each;  // at most 2^34
    field.offset = length <= 4 ? entry + 8 : load_u32(from + 8, order);
    if (!lies_within(field.offset, length, in.size())) {
        return failure(Code::truncated, "the values of TIFF tag {} lie beyond the end of the file", entry).with(tag);
    }
    return success();
}

Status take_entry(ConstBytes in, ByteOrder order, std::uint64_t entry, Tags& tags) noexcept {
    const auto tag = static_cast<Tag>(load_u16(in.data() + entry, order));
    for (const Scalar& scalar : scalars) {
        if (scalar.tag == tag) {
            Field field;
            const Status status = locate(in, order, entry, field);
            if (status.ok()) {
                tags.*scalar.member = value_at(in, order, field, 0);
            }
            return status;
        }
    }
    for (const Listed& list : lists) {
        if (list.tag == tag) {
            return locate(in, order, entry, tags.*list.member);
        }
    }
    tags.tiled = tags.tiled || tag == Tag::tile_width;
    return success();
}

// All values of a per-sample tag are equal in the images read here; `common` is that value.
Status common_value(ConstBytes in, ByteOrder order, const Field& field, const char* differing,
                    std::uint64_t& common) noexcept {
    if (field.type == 0) {
        return success();
    }
    common = value_at(in, order, field, 0);
    for (std::uint64_t i = 1; i < field.count; ++i) {
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

Status interpret_samples(ConstBytes in, ByteOrder order, const Tags& tags, std::uint64_t at, ImageInfo& info) noexcept {
    std::uint64_t bits = 1;
    std::uint64_t format = 1;
    if (const Status status =
            common_value(in, order, tags.bits, "TIFF samples of differing bit widths are not supported", bits);
        !status.ok()) {
        return status;
    }
    if (const Status status =
            common_value(in, order, tags.sample_format, "TIFF samples of differing formats are not supported", format);
        !status.ok()) {
        return status;
    }
    if (format == 2) {
        return failure(Code::unsupported, "TIFF with signed {}-bit samples is not supported", at)
            .with(static_cast<std::int64_t>(bits));
    }
    if (format == 3 || format > 4) {
        return failure(Code::unsupported,
                       "TIFF with {}-bit samples of format {} (3 is floating point) is not supported", at)
            .with(static_cast<std::int64_t>(bits), static_cast<std::int64_t>(format));
    }
    if (bits != 8 && bits != 16) {
        return failure(Code::unsupported, "TIFF with {}-bit samples is not supported", at)
            .with(static_cast<std::int64_t>(bits));
    }
    info.type = bits == 8 ? SampleType::u8 : SampleType::u16;
    return success();
}

Status interpret_layout(const Tags& tags, std::uint64_t at, ImageInfo& info) noexcept {
    if (tags.tiled) {
        return failure(Code::unsupported, "TIFF stored in tiles is not supported", at);
    }
    if (tags.fill_order != 1) {
        return failure(Code::unsupported, "TIFF with fill order {} is not supported", at)
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
    const bool predicts = info.compression == Compression::lzw || info.compression == Compression::deflate ||
                          info.compression == Compression::zstd;
    if (predicts && tags.predictor != 1 && tags.predictor != 2) {
        return failure(Code::unsupported, "TIFF predictor {} is not supported", at)
            .with(static_cast<std::int64_t>(tags.predictor));
    }
    info.predictor = predicts ? static_cast<std::uint16_t>(tags.predictor) : 1;
    info.planar = tags.planar == 2 && tags.samples > 1;
    info.photometric = static_cast<std::uint16_t>(tags.photometric);
    info.inverted = tags.photometric == 0 && info.type == SampleType::u8;
    return success();
}

Status interpret_size(const Tags& tags, const Limits& limits, std::uint64_t at, ImageInfo& info) noexcept {
    if (tags.width == 0 || tags.height == 0 || tags.samples == 0) {
        return failure(Code::corrupt, "TIFF of width {}, height {} and {} samples holds no image", at)
            .with(static_cast<std::int64_t>(tags.width), static_cast<std::int64_t>(tags.height),
                  static_cast<std::int64_t>(tags.samples));
    }
    if (tags.rows_per_strip == 0) {
        return failure(Code::corrupt, "TIFF with 0 rows per strip holds no image", at);
    }
    std::uint64_t values = 0;
    if (!multiply(tags.width, tags.height, values) || !multiply(values, tags.samples, values) ||
        values > limits.pixels) {
        return failure(Code::limit, "an image of {} x {} pixels with {} samples exceeds the pixel limit", at)
            .with(static_cast<std::int64_t>(tags.height), static_cast<std::int64_t>(tags.width),
                  static_cast<std::int64_t>(tags.samples));
    }
    info.width = static_cast<std::uint32_t>(tags.width);
    info.height = static_cast<std::uint32_t>(tags.height);
    info.samples = static_cast<std::uint32_t>(tags.samples);
    info.rows_per_strip = static_cast<std::uint32_t>(std::min(tags.rows_per_strip, tags.height));
    return success();
}

Status interpret_strips(const Tags& tags, std::uint64_t at, Page& page) noexcept {
    const ImageInfo& info = page.info;
    page.strip_offsets = tags.strip_offsets;
    page.strip_byte_counts = tags.strip_byte_counts;
    page.strips = (std::uint64_t{info.height} + info.rows_per_strip - 1) / info.rows_per_strip;
    const std::uint64_t needed = page.strips * (info.planar ? info.samples : 1);
    if (page.strip_offsets.count < needed) {
        return failure(Code::corrupt, "TIFF names {} strips where its size needs {}", at)
            .with(static_cast<std::int64_t>(page.strip_offsets.count), static_cast<std::int64_t>(needed));
    }
    const bool counted = page.strip_byte_counts.count >= needed;
    if (!counted && (page.strip_byte_counts.type != 0 || info.compression != Compression::none)) {
        return failure(Code::corrupt, "TIFF gives the length of {} strips where its size needs {}", at)
            .with(static_cast<std::int64_t>(page.strip_byte_counts.count), static_cast<std::int64_t>(needed));
    }
    return success();
}

}  // namespace

bool has_signature(ConstBytes in) noexcept {
    return in.size() >= 4 &&
           ((in[0] == 'I' && in[1] == 'I' && in[3] == 0) || (in[0] == 'M' && in[1] == 'M' && in[2] == 0)) &&
           (in[in[0] == 'I' ? 2 : 3] == 42 || in[in[0] == 'I' ? 2 : 3] == 43);
}

Status Chain::begin() noexcept {
    order_ = in_[0] == 'I' ? ByteOrder::little : ByteOrder::big;
    if (load_u16(in_.data() + 2, order_) == 43) {
        return failure(Code::unsupported, "BigTIFF is not supported", 2);
    }
    if (in_.size() < 8) {
        return failure(Code::truncated, "the file ends within the TIFF header", in_.size());
    }
    offset_ = load_u32(in_.data() + 4, order_);
    landmark_ = offset_;
    if (offset_ == 0) {
        return failure(Code::corrupt, "TIFF without a page", 4);
    }
    return success();
}

Status Chain::advance() noexcept {
    if (!lies_within(offset_, 2, in_.size())) {
        return failure(Code::truncated, "a TIFF page lies beyond the end of the file", offset_);
    }
    const std::uint64_t after = offset_ + 2 + entry_bytes * load_u16(in_.data() + offset_, order_);
    if (!lies_within(after, 4, in_.size())) {
        return failure(Code::truncated, "the file ends within the directory of a TIFF page", offset_);
    }
    const std::uint64_t from = offset_;
    offset_ = load_u32(in_.data() + after, order_);
    if (offset_ == landmark_) {
        return failure(Code::corrupt, "the chain of TIFF pages loops", from);
    }
    if (++steps_ == lap_) {
        landmark_ = offset_;
        steps_ = 0;
        lap_ *= 2;
    }
    return success();
}

Status Chain::read(const Limits& limits, Page& page) const noexcept {
    if (!lies_within(offset_, 2, in_.size())) {
        return failure(Code::truncated, "a TIFF page lies beyond the end of the file", offset_);
    }
    const std::uint64_t entries = load_u16(in_.data() + offset_, order_);
    if (!lies_within(offset_ + 2, entries * entry_bytes, in_.size())) {
        return failure(Code::truncated, "the file ends within the directory of a TIFF page", offset_);
    }
    Tags tags;
    Status status = success();
    for (std::uint64_t i = 0; i < entries && status.ok(); ++i) {
        status = take_entry(in_, order_, offset_ + 2 + i * entry_bytes, tags);
    }
    page = Page{};
    page.info.format = Format::tiff;
    page.info.order = order_;
    if (status.ok()) {
        status = interpret_compression(tags.compression, offset_, page.info.compression);
    }
    if (status.ok()) {
        status = interpret_samples(in_, order_, tags, offset_, page.info);
    }
    if (status.ok()) {
        status = interpret_layout(tags, offset_, page.info);
    }
    if (status.ok()) {
        status = interpret_size(tags, limits, offset_, page.info);
    }
    return status.ok() ? interpret_strips(tags, offset_, page) : status;
}

}  // namespace chammi::tiff
