#include "png_header.hpp"

#include <algorithm>
#include <cstring>

#include "chammi/unpack.hpp"

namespace chammi::png {
namespace {

constexpr std::size_t header_length = 13;

Status check_sum(ConstBytes in, const Chunk& chunk) noexcept {
    const std::uint32_t stored = load_u32(chunk.data.data() + chunk.data.size(), ByteOrder::big);
    if (stored != crc32(in.subspan(chunk.offset + 4, chunk.data.size() + 4))) {
        return failure(Code::corrupt, "the checksum of a PNG chunk is wrong", chunk.offset);
    }
    return success();
}

// Samples per pixel of a colour type, 0 where the type does not exist.
constexpr std::uint32_t samples_of(unsigned colour) noexcept {
    constexpr std::array<std::uint32_t, 7> samples{1, 0, 3, 1, 2, 0, 4};
    return colour < samples.size() ? samples[colour] : 0;
}

Status interpret(const Chunk& chunk, Header& header) noexcept {
    const std::uint8_t* data = chunk.data.data();
    const std::uint32_t width = load_u32(data, ByteOrder::big);
    const std::uint32_t height = load_u32(data + 4, ByteOrder::big);
    const unsigned depth = data[8];
    const unsigned colour = data[9];
    const std::uint64_t at = chunk.offset + 8;
    if (width == 0 || height == 0 || width > 0x7FFFFFFFU || height > 0x7FFFFFFFU) {
        return failure(Code::corrupt, "PNG of width {} and height {} holds no image", at).with(width, height);
    }
    const bool narrow = depth == 1 || depth == 2 || depth == 4;
    const bool exists = samples_of(colour) != 0 &&
                        (depth == 8 || (depth == 16 && colour != 3) || (narrow && (colour == 0 || colour == 3)));
    if (!exists) {
        return failure(Code::corrupt, "PNG colour type {} with {} bits does not exist", at + 8).with(colour, depth);
    }
    if (data[10] != 0 || data[11] != 0 || data[12] > 1) {
        return failure(Code::corrupt, "PNG compression {}, filter method {} or interlace method {} does not exist",
                       at + 10)
            .with(data[10], data[11], data[12]);
    }
    ImageInfo& info = header.info;
    info.format = Format::png;
    info.type = depth == 16 ? SampleType::u16 : SampleType::u8;
    info.bits = static_cast<std::uint16_t>(depth);
    info.compression = Compression::deflate;
    info.order = ByteOrder::big;
    info.width = width;
    info.height = height;
    info.rows_per_strip = height;
    constexpr std::array<std::uint16_t, 7> photometrics{1, 0, 2, 3, 1, 0, 2};
    info.photometric = photometrics[colour];
    info.interlaced = data[12] == 1;
    header.colour = colour;
    header.expansion.depth = depth;
    header.expansion.stored = samples_of(colour);
    return success();
}

// As libpng: colours beyond those that indices can name are ignored, as long as no more than 256 are there.
Status take_palette(const Chunk& chunk, Expansion& expansion) noexcept {
    constexpr std::size_t most = std::size_t{3} * 256;
    if (chunk.data.empty() || chunk.data.size() % 3 != 0 || chunk.data.size() > most || expansion.indexed()) {
        return failure(Code::corrupt, "the PNG has a palette of {} bytes for indices of {} bits", chunk.offset)
            .with(static_cast<std::int64_t>(chunk.data.size()), expansion.depth);
    }
    expansion.colours = std::min(static_cast<std::uint32_t>(chunk.data.size() / 3), 1U << expansion.depth);
    for (std::size_t i = 0; i < expansion.colours; ++i) {
        std::memcpy(expansion.palette.data() + 4 * i, chunk.data.data() + 3 * i, 3);
        expansion.palette[4 * i + 3] = 255;
    }
    return success();
}

// As libpng: a chunk that does not fit, or stands before the palette that it is for, is ignored. Of two that fit,
// libpng takes the first and others the last.
Status take_transparency(ConstBytes in, const Chunk& chunk, unsigned colour, Expansion& expansion) noexcept {
    const std::size_t length = chunk.data.size();
    const bool fits = colour == 3 ? length != 0 && length <= expansion.colours : length == 6;
    if (!fits) {
        return success();
    }
    if (const Status status = check_sum(in, chunk); !status.ok()) {
        return status;
    }
    if (expansion.given == 4) {
        return failure(Code::corrupt, "the PNG has a second transparency chunk, of {} bytes", chunk.offset)
            .with(static_cast<std::int64_t>(length));
    }
    expansion.given = 4;
    if (colour == 3) {
        for (std::size_t i = 0; i < length; ++i) {
            expansion.palette[4 * i + 3] = chunk.data[i];
        }
        return success();
    }
    expansion.keyed = true;
    for (std::size_t i = 0; i < 3; ++i) {  // 16 bits each, of which 8-bit colours take the low ones
        const std::uint8_t* from = chunk.data.data() + 2 * i;
        if (expansion.depth == 16) {
            std::memcpy(expansion.key.data() + 2 * i, from, 2);
        } else {
            expansion.key[i] = from[1];
        }
    }
    return success();
}

// Reads what stands between the header and the pixels and changes them: a palette and transparent colours.
Status read_colours(ConstBytes in, std::uint64_t offset, Header& header) noexcept {
    Expansion& expansion = header.expansion;
    expansion.given = 3;
    for (Chunk chunk; chunk.type != idat;) {
        Status status = read_chunk(in, offset, chunk);
        if (status.ok() && chunk.type == iend) {
            status = failure(Code::corrupt, "PNG without an IDAT chunk", offset);
        }
        if (status.ok() && chunk.type == plte && header.colour == 3) {
            status = take_palette(chunk, expansion);
        }
        if (status.ok() && chunk.type == trns) {
            status = take_transparency(in, chunk, header.colour, expansion);
        }
        if (!status.ok()) {
            return status;
        }
        offset = end_of(chunk);
    }
    if (header.colour == 3 && !expansion.indexed()) {
        return failure(Code::corrupt, "PNG of indices without a palette", offset);
    }
    return success();
}

}  // namespace

Status read_chunk(ConstBytes in, std::uint64_t offset, Chunk& chunk) noexcept {
    if (!lies_within(offset, chunk_frame, in.size())) {
        return failure(Code::truncated, "the file ends within a PNG chunk", in.size());
    }
    const std::uint64_t length = load_u32(in.data() + offset, ByteOrder::big);
    chunk.offset = offset;
    chunk.type = load_u32(in.data() + offset + 4, ByteOrder::big);
    if (length > 0x7FFFFFFFU) {
        return failure(Code::corrupt, "a PNG chunk has the impossible length {}", offset)
            .with(static_cast<std::int64_t>(length));
    }
    if (!lies_within(offset, chunk_frame + length, in.size())) {
        return failure(Code::truncated, "the file ends within a PNG chunk", in.size());
    }
    chunk.data = in.subspan(offset + 8, length);
    return is_critical(chunk.type) ? check_sum(in, chunk) : success();
}

Status read_header(ConstBytes in, const Limits& limits, Header& header) noexcept {
    Chunk chunk;
    Status status = read_chunk(in, signature.size(), chunk);
    if (status.ok() && (chunk.type != ihdr || chunk.data.size() != header_length)) {
        status = failure(Code::corrupt, "the PNG does not begin with its header", chunk.offset);
    }
    if (status.ok()) {
        status = interpret(chunk, header);
    }
    header.expansion.given = header.expansion.stored;
    if (status.ok() && (header.colour == 2 || header.colour == 3)) {
        status = read_colours(in, end_of(chunk), header);
    }
    if (!status.ok()) {
        return status;
    }
    ImageInfo& info = header.info;
    info.samples = header.expansion.given;
    info.expanded = header.expansion.needed();
    if (!limits.allow(std::uint64_t{info.width} * info.height) ||
        !limits.allow(std::uint64_t{info.width} * info.height * info.samples)) {
        return failure(Code::limit, "an image of {} x {} pixels with {} samples exceeds the pixel limit",
                       chunk.offset + 8)
            .with(info.height, info.width, info.samples);
    }
    return success();
}

}  // namespace chammi::png
