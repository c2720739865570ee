#include "tiff_tags.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace chammi::tiff {
namespace {

enum class Tag : std::uint16_t {
    width = 256,
    height = 257,
    bits = 258,
    compression = 259,
    photometric = 262,
    fill_order = 266,
    description = 270,
    strip_offsets = 273,
    samples = 277,
    rows_per_strip = 278,
    strip_byte_counts = 279,
    planar = 284,
    predictor = 317,
    tile_width = 322,
    tile_height = 323,
    tile_offsets = 324,
    tile_byte_counts = 325,
    sample_format = 339,
    depth = 32997,
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
        case 16:
        case 18:
            return 8;
        default:
            return 0;
    }
}

struct Scalar {
    Tag tag;
    std::uint64_t Tags::* member;
};
constexpr std::array scalars{
    Scalar{Tag::width, &Tags::width},
    Scalar{Tag::height, &Tags::height},
    Scalar{Tag::depth, &Tags::depth},
    Scalar{Tag::compression, &Tags::compression},
    Scalar{Tag::photometric, &Tags::photometric},
    Scalar{Tag::fill_order, &Tags::fill_order},
    Scalar{Tag::samples, &Tags::samples},
    Scalar{Tag::rows_per_strip, &Tags::rows_per_strip},
    Scalar{Tag::planar, &Tags::planar},
    Scalar{Tag::predictor, &Tags::predictor},
    Scalar{Tag::tile_width, &Tags::tile_width},
    Scalar{Tag::tile_height, &Tags::tile_height},
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
    Listed{Tag::tile_offsets, &Tags::tile_offsets},
    Listed{Tag::tile_byte_counts, &Tags::tile_byte_counts},
};

// Finds `field.count` values of `each` bytes; false where they lie beyond the end of the file.
bool place(ConstBytes in, Notation notation, std::uint64_t entry, std::uint64_t each, Field& field) noexcept {
    const std::uint64_t inside = notation.big ? 8 : 4;
    const std::uint8_t* value = in.data() + entry + entry_bytes(notation) - inside;
    std::uint64_t length = 0;
    if (!multiply(field.count, each, length)) {
        return false;
    }
    if (length <= inside) {
        field.offset = static_cast<std::uint64_t>(value - in.data());
    } else {
        field.offset = notation.big ? load_u64(value, notation.order) : load_u32(value, notation.order);
    }
    return lies_within(field.offset, length, in.size());
}

Field entry_field(ConstBytes in, Notation notation, std::uint64_t entry) noexcept {
    const std::uint8_t* from = in.data() + entry;
    return {load_u16(from + 2, notation.order),
            notation.big ? load_u64(from + 4, notation.order) : load_u32(from + 4, notation.order), 0};
}

Status locate(ConstBytes in, Notation notation, std::uint64_t entry, Field& field) noexcept {
    field = entry_field(in, notation, entry);
    const std::uint64_t each = value_bytes(field.type);
    const std::int64_t tag = load_u16(in.data() + entry, notation.order);
    if (each == 0 || field.count == 0) {
        return failure(Code::corrupt, "TIFF tag {} has field type {} and {} values", entry)
            .with(tag, field.type, static_cast<std::int64_t>(field.count));
    }
    if (!place(in, notation, entry, each, field)) {
        return failure(Code::truncated, "the values of TIFF tag {} lie beyond the end of the file", entry).with(tag);
    }
    return success();
}

// Reads "images=N" in a description by ImageJ; 1 in all other texts.
std::uint32_t images_of(ConstBytes in, Notation notation, std::uint64_t entry) noexcept {
    constexpr std::string_view writer = "ImageJ=";
    constexpr std::string_view key = "\nimages=";
    Field field = entry_field(in, notation, entry);
    if (field.type != 2 || !place(in, notation, entry, 1, field)) {
        return 1;
    }
    // ImageJ counts in its second line; a long text may stand in many directories, and is not searched for each.
    constexpr std::uint64_t enough = 1024;
    const std::string_view text{reinterpret_cast<const char*>(in.data()) + field.offset, std::min(field.count, enough)};
    std::size_t at = text.find(key);
    if (!text.starts_with(writer) || at == std::string_view::npos) {
        return 1;
    }
    std::uint32_t images = 0;
    for (at += key.size(); at < text.size() && text[at] >= '0' && text[at] <= '9' && images < 100'000'000; ++at) {
        images = images * 10 + static_cast<std::uint32_t>(text[at] - '0');
    }
    return images == 0 ? 1 : images;
}

Status take_entry(ConstBytes in, Notation notation, std::uint64_t entry, Tags& tags) noexcept {
    const auto tag = static_cast<Tag>(load_u16(in.data() + entry, notation.order));
    for (const Scalar& scalar : scalars) {
        if (scalar.tag == tag) {
            Field field;
            const Status status = locate(in, notation, entry, field);
            if (status.ok()) {
                tags.*scalar.member = value_at(in, notation.order, field, 0);
            }
            return status;
        }
    }
    for (const Listed& list : lists) {
        if (list.tag == tag) {
            return locate(in, notation, entry, tags.*list.member);
        }
    }
    if (tag == Tag::description) {
        tags.images = images_of(in, notation, entry);
    }
    return success();
}

}  // namespace

std::uint64_t place_of(const Field& field, std::uint64_t index) noexcept {
    return field.offset + value_bytes(field.type) * index;
}

std::uint64_t value_at(ConstBytes in, ByteOrder order, const Field& field, std::uint64_t index) noexcept {
    const std::uint8_t* base = in.data() + field.offset;
    switch (value_bytes(field.type)) {
        case 1:
            return base[index];
        case 2:
            return load_u16(base + 2 * index, order);
        case 4:
            return load_u32(base + 4 * index, order);
        default:
            return load_u64(base + 8 * index, order);
    }
}

Status find_entries(ConstBytes in, Notation notation, std::uint64_t offset, std::uint64_t& first,
                    std::uint64_t& entries) noexcept {
    const std::uint64_t head = notation.big ? 8 : 2;
    if (!lies_within(offset, head, in.size())) {
        return failure(Code::truncated, "a TIFF page lies beyond the end of the file", offset);
    }
    const std::uint8_t* count = in.data() + offset;
    entries = notation.big ? load_u64(count, notation.order) : load_u16(count, notation.order);
    first = offset + head;
    if (entries > (in.size() - first) / entry_bytes(notation)) {
        return failure(Code::truncated, "the file ends within the directory of a TIFF page", offset);
    }
    return success();
}

Status read_tags(ConstBytes in, Notation notation, std::uint64_t offset, Tags& tags) noexcept {
    std::uint64_t first = 0;
    std::uint64_t entries = 0;
    Status status = find_entries(in, notation, offset, first, entries);
    for (std::uint64_t i = 0; i < entries && status.ok(); ++i) {
        status = take_entry(in, notation, first + i * entry_bytes(notation), tags);
    }
    return status;
}

}  // namespace chammi::tiff
