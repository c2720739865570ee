#include "chammi/png.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "chammi/kernels.hpp"
#include "chammi/unpack.hpp"

namespace chammi::png {
namespace {

constexpr std::array<std::uint8_t, 8> signature{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::size_t header_length = 13;
constexpr std::size_t chunk_frame = 12;     // length, type, CRC
constexpr std::uint64_t best_ratio = 1032;  // of deflate: 258 bytes by two bits

constexpr std::uint32_t type_code(const char (&name)[5]) noexcept {  // NOLINT(*-avoid-c-arrays)
    std::uint32_t code = 0;
    for (std::size_t i = 0; i < 4; ++i) {
        code = (code << 8U) | static_cast<std::uint8_t>(name[i]);
    }
    return code;
}
constexpr std::uint32_t ihdr = type_code("IHDR");
constexpr std::uint32_t plte = type_code("PLTE");
constexpr std::uint32_t idat = type_code("IDAT");
constexpr std::uint32_t iend = type_code("IEND");
constexpr std::uint32_t trns = type_code("tRNS");

constexpr bool is_critical(std::uint32_t type) noexcept {
    return (type & 0x20000000U) == 0;
}

struct Chunk {
    std::uint32_t type = 0;
    std::uint64_t offset = 0;  // of the chunk's length field
    ConstBytes data;
};

// Reads the chunk at `offset`. The CRC of ancillary chunks is left alone, as nothing of them is used.
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
    if (is_critical(chunk.type)) {
        const std::uint32_t stored = load_u32(in.data() + offset + 8 + length, ByteOrder::big);
        if (stored != crc32(in.subspan(offset + 4, length + 4))) {
            return failure(Code::corrupt, "the checksum of a PNG chunk is wrong", offset);
        }
    }
    return success();
}

std::uint64_t end_of(const Chunk& chunk) noexcept {
    return chunk.offset + chunk_frame + chunk.data.size();
}

// Samples per pixel of a colour type, 0 where the type does not exist.
constexpr std::uint32_t samples_of(unsigned colour) noexcept {
    constexpr std::array<std::uint32_t, 7> samples{1, 0, 3, 1, 2, 0, 4};
    return colour < samples.size() ? samples[colour] : 0;
}

Status interpret(const Chunk& header, const Limits& limits, ImageInfo& info) noexcept {
    const std::uint8_t* data = header.data.data();
    const std::uint64_t width = load_u32(data, ByteOrder::big);
    const std::uint64_t height = load_u32(data + 4, ByteOrder::big);
    const unsigned depth = data[8];
    const unsigned colour = data[9];
    const std::uint64_t at = header.offset + 8;
    if (width == 0 || height == 0 || width > 0x7FFFFFFFU || height > 0x7FFFFFFFU) {
        return failure(Code::corrupt, "PNG of width {} and height {} holds no image", at)
            .with(static_cast<std::int64_t>(width), static_cast<std::int64_t>(height));
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
    if (colour == 3) {
        return failure(Code::unsupported, "PNG with a palette is not supported", at + 9);
    }
    if (narrow) {
        return failure(Code::unsupported, "PNG with {}-bit samples is not supported", at + 8).with(depth);
    }
    if (data[12] == 1) {
        return failure(Code::unsupported, "interlaced PNG is not supported", at + 12);
    }
    const std::uint64_t values = width * height;  // below 2^62
    if (values > limits.pixels / samples_of(colour)) {
        return failure(Code::limit, "an image of {} x {} pixels with {} samples exceeds the pixel limit", at)
            .with(static_cast<std::int64_t>(height), static_cast<std::int64_t>(width), samples_of(colour));
    }
    info = ImageInfo{};
    info.format = Format::png;
    info.type = depth == 8 ? SampleType::u8 : SampleType::u16;
    info.compression = Compression::deflate;
    info.order = ByteOrder::big;
    info.width = static_cast<std::uint32_t>(width);
    info.height = static_cast<std::uint32_t>(height);
    info.samples = samples_of(colour);
    info.rows_per_strip = info.height;
    info.photometric = colour == 2 || colour == 6 ? 2 : 1;
    return success();
}

// The compressed image: usually cut into several IDAT chunks, which are then put together in `work.packed`.
struct Stream {
    ConstBytes bytes;
    std::uint64_t offset = 0;  // of the first IDAT chunk
};

struct Survey {
    std::uint64_t first = 0;  // offset of the first IDAT chunk
    std::uint64_t total = 0;  // bytes of all of them
    std::uint64_t chunks = 0;
};

// Walks over all chunks once, with every check, before anything is unpacked.
Status survey_chunks(ConstBytes in, const ImageInfo& info, Survey& survey) noexcept {
    std::uint64_t offset = signature.size();
    bool within = false;  // among IDAT chunks
    for (bool first = true;; first = false) {
        Chunk chunk;
        if (const Status status = read_chunk(in, offset, chunk); !status.ok()) {
            return status;
        }
        if (chunk.type == idat) {
            if (survey.chunks != 0 && !within) {
                return failure(Code::corrupt, "other chunks stand between the IDAT chunks of the PNG", offset);
            }
            survey.first = survey.chunks == 0 ? offset : survey.first;
            survey.total += chunk.data.size();
            ++survey.chunks;
        } else if (chunk.type == iend) {
            break;
        } else if (chunk.type == trns && info.samples == 3) {
            return failure(Code::unsupported, "PNG with a transparent colour is not supported", offset);
        } else if ((chunk.type == ihdr) != first || (is_critical(chunk.type) && !first && chunk.type != plte)) {
            return failure(Code::corrupt, "the PNG has a chunk out of place or of a kind unknown", offset);
        }
        within = chunk.type == idat;
        offset = end_of(chunk);
    }
    return survey.chunks != 0 ? success() : failure(Code::corrupt, "PNG without an IDAT chunk", offset);
}

Status gather(ConstBytes in, const Survey& survey, Workspace& work, ConstBytes& stream) noexcept {
    if (survey.chunks == 1) {
        stream = in.subspan(survey.first + 8, survey.total);
        return success();
    }
    if (!work.packed.resize(survey.total)) {
        return out_of_memory();
    }
    std::uint64_t offset = survey.first;
    std::uint64_t filled = 0;
    for (std::uint64_t i = 0; i < survey.chunks; ++i) {
        const std::uint64_t length = load_u32(in.data() + offset, ByteOrder::big);
        if (length != 0) {
            std::memcpy(work.packed.data() + filled, in.data() + offset + 8, length);
        }
        filled += length;
        offset += chunk_frame + length;
    }
    stream = work.packed.bytes();
    return success();
}

Status inflate(ConstBytes stream, std::uint64_t at, std::uint64_t needed, Workspace& work) noexcept {
    if (needed / best_ratio > stream.size()) {
        return failure(Code::corrupt, "the PNG holds far less than its size of {} bytes", at)
            .with(static_cast<std::int64_t>(needed));
    }
    if (!work.unpacked.resize(needed)) {
        return out_of_memory();
    }
    const UnpackResult result = unpack_zlib(stream, work.unpacked.bytes(), work);
    switch (result.outcome) {
        case Unpacked::complete:
            break;
        case Unpacked::no_memory:
            return out_of_memory();
        case Unpacked::overflow:
        case Unpacked::corrupt:  // of a stream that is both too long and broken, the libraries may see either
                                 // first
            return failure(Code::corrupt, "the compressed data of the PNG is broken or too long", at);
    }
    if (result.written != needed) {
        return failure(Code::corrupt, "the PNG holds {} bytes where {} are needed", at)
            .with(static_cast<std::int64_t>(result.written), static_cast<std::int64_t>(needed));
    }
    return success();
}

}  // namespace

bool has_signature(ConstBytes in) noexcept {
    return in.size() >= signature.size() && std::equal(signature.begin(), signature.end(), in.begin());
}

Status probe(ConstBytes in, const Limits& limits, ImageInfo& info) noexcept {
    Chunk header;
    if (const Status status = read_chunk(in, signature.size(), header); !status.ok()) {
        return status;
    }
    if (header.type != ihdr || header.data.size() != header_length) {
        return failure(Code::corrupt, "the PNG does not begin with its header", header.offset);
    }
    return interpret(header, limits, info);
}

Status decode(ConstBytes in, const ImageInfo& info, Workspace& work, Bytes out) noexcept {
    Survey survey;
    if (const Status status = survey_chunks(in, info, survey); !status.ok()) {
        return status;
    }
    ConstBytes stream;
    if (const Status status = gather(in, survey, work, stream); !status.ok()) {
        return status;
    }
    const std::uint64_t row = row_bytes(info);
    if (const Status status = inflate(stream, survey.first, (row + 1) * info.height, work); !status.ok()) {
        return status;
    }
    const std::uint32_t bad_row = kernels().unfilter(work.unpacked.data(), out.data(), info.height, row,
                                                     std::size_t{info.samples} * sample_bytes(info.type));
    if (bad_row != info.height) {
        return failure(Code::corrupt, "row {} of the PNG has an unknown filter", survey.first).with(bad_row);
    }
    if (info.type == SampleType::u16 && native_order == ByteOrder::little) {
        kernels().swap_u16(out.data(), out.size() / 2);
    }
    return success();
}

}  // namespace chammi::png
