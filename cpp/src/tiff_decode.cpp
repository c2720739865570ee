#include <algorithm>
#include <cstring>

#include "chammi/kernels.hpp"
#include "chammi/tiff.hpp"
#include "chammi/unpack.hpp"

namespace chammi::tiff {
namespace {

std::uint64_t number_at(ConstBytes in, ByteOrder order, const Field& field, std::uint64_t index) noexcept {
    const std::uint8_t* base = in.data() + field.offset;
    switch (field.type) {
        case 1:
            return base[index];
        case 3:
            return load_u16(base + 2 * index, order);
        default:
            return load_u32(base + 4 * index, order);
    }
}

// The bytes of one strip as they stand in the file.
struct Strip {
    ConstBytes packed;
    std::uint64_t offset = 0;
    bool cut = false;  // the file ends before the strip does
};

struct Geometry {
    std::uint64_t row = 0;      // bytes of one row of one strip
    std::uint32_t samples = 1;  // interleaved within a strip
};

Geometry geometry_of(const ImageInfo& info) noexcept {
    const std::uint32_t samples = info.planar ? 1 : info.samples;
    return {std::uint64_t{info.width} * samples * sample_bytes(info.type), samples};
}

Status find_strip(ConstBytes in, const Page& page, std::uint64_t index, std::uint64_t needed, Strip& strip) noexcept {
    const ByteOrder order = page.info.order;
    strip.offset = number_at(in, order, page.strip_offsets, index);
    std::uint64_t length =
        page.strip_byte_counts.type == 0 ? needed : number_at(in, order, page.strip_byte_counts, index);
    if (strip.offset >= in.size()) {
        return failure(Code::truncated, "TIFF strip {} lies beyond the end of the file", strip.offset)
            .with(static_cast<std::int64_t>(index));
    }
    if (strip.offset == 0 || length == 0) {
        return failure(Code::corrupt, "TIFF strip {} is empty", strip.offset).with(static_cast<std::int64_t>(index));
    }
    strip.cut = length > in.size() - strip.offset;
    if (strip.cut) {
        length = in.size() - strip.offset;
    }
    strip.packed = in.subspan(strip.offset, length);
    return success();
}

UnpackResult unpack(Compression compression, ConstBytes packed, Bytes out, Workspace& work) noexcept {
    switch (compression) {
        case Compression::none: {
            const std::size_t length = std::min(packed.size(), out.size());
            std::memcpy(out.data(), packed.data(), length);
            return {Unpacked::complete, length};
        }
        case Compression::lzw:
            return unpack_lzw(packed, out);
        case Compression::deflate:
            return unpack_zlib(packed, out, work);
        case Compression::packbits:
            return unpack_packbits(packed, out);
        case Compression::zstd:
            return unpack_zstd(packed, out, work);
    }
    return {};
}

// Some writers fill up the last strip to the height of the others: `full` is that size.
UnpackResult unpack_padded(Compression compression, ConstBytes packed, Bytes out, std::uint64_t full,
                           Workspace& work) noexcept {
    const UnpackResult result = unpack(compression, packed, out, work);
    if (result.outcome != Unpacked::overflow || full <= out.size()) {
        return result;
    }
    if (!work.unpacked.resize(full)) {
        return {Unpacked::no_memory, 0};
    }
    const UnpackResult padded = unpack(compression, packed, work.unpacked.bytes(), work);
    if (padded.outcome != Unpacked::complete) {
        return padded;
    }
    const std::size_t length = std::min(padded.written, out.size());
    std::memcpy(out.data(), work.unpacked.data(), length);
    return {Unpacked::complete, length};
}

Status read_strip(const Page& page, const Strip& strip, std::uint64_t index, Bytes out, Workspace& work) noexcept {
    const Compression compression = page.info.compression;
    const auto number = static_cast<std::int64_t>(index);
    if (compression == Compression::lzw && is_old_lzw(strip.packed)) {
        return failure(Code::unsupported, "TIFF with LZW of the kind used before 1992 is not supported", strip.offset);
    }
    const std::uint64_t full = geometry_of(page.info).row * page.info.rows_per_strip;
    const UnpackResult result = unpack_padded(compression, strip.packed, out, full, work);
    if (result.outcome == Unpacked::no_memory) {
        return out_of_memory();
    }
    if (result.outcome == Unpacked::complete && result.written == out.size()) {
        return success();
    }
    if (strip.cut) {
        return failure(Code::truncated, "the file ends within TIFF strip {}", strip.offset).with(number);
    }
    if (result.outcome == Unpacked::complete) {
        return failure(Code::corrupt, "TIFF strip {} holds {} bytes where {} are needed", strip.offset)
            .with(number, static_cast<std::int64_t>(result.written), static_cast<std::int64_t>(out.size()));
    }
    // Too long or broken is one finding: of a stream that is both, the libraries may see either first.
    return failure(Code::corrupt, "the compressed data of TIFF strip {} is broken or too long", strip.offset)
        .with(number);
}

void finish_strip(const ImageInfo& info, Bytes strip) noexcept {
    const Geometry geometry = geometry_of(info);
    if (info.type == SampleType::u16 && info.order != native_order) {
        kernels().swap_u16(strip.data(), strip.size() / 2);
    }
    if (info.predictor == 2) {
        for (std::uint64_t at = 0; at < strip.size(); at += geometry.row) {
            std::uint8_t* row = strip.data() + at;
            if (info.type == SampleType::u8) {
                kernels().integrate_u8(row, geometry.row, geometry.samples);
            } else {
                kernels().integrate_u16(row, geometry.row / 2, geometry.samples);
            }
        }
    }
    if (info.inverted) {
        for (std::uint8_t& value : strip) {
            value = static_cast<std::uint8_t>(~value);
        }
    }
}

Status decode_strips(ConstBytes in, const Page& page, std::uint64_t first, Workspace& work, Bytes out) noexcept {
    const ImageInfo& info = page.info;
    const std::uint64_t row = geometry_of(info).row;
    for (std::uint64_t i = 0; i < page.strips; ++i) {
        const std::uint64_t top = i * info.rows_per_strip;
        const std::uint64_t rows = std::min<std::uint64_t>(info.rows_per_strip, info.height - top);
        const Bytes part = out.subspan(top * row, rows * row);
        Strip strip;
        Status status = find_strip(in, page, first + i, part.size(), strip);
        if (status.ok()) {
            status = read_strip(page, strip, first + i, part, work);
        }
        if (!status.ok()) {
            return status;
        }
        finish_strip(info, part);
    }
    return success();
}

template <typename T>
void interleave(const T* plane, std::uint64_t pixels, std::uint32_t samples, T* out) noexcept {
    for (std::uint64_t i = 0; i < pixels; ++i) {
        out[i * samples] = plane[i];
    }
}

}  // namespace

Status decode_page(ConstBytes in, const Page& page, Workspace& work, Bytes out) noexcept {
    const ImageInfo& info = page.info;
    if (!info.planar) {
        return decode_strips(in, page, 0, work, out);
    }
    const std::uint64_t pixels = std::uint64_t{info.width} * info.height;
    if (!work.planar.resize(pixels * sample_bytes(info.type))) {
        return out_of_memory();
    }
    for (std::uint32_t plane = 0; plane < info.samples; ++plane) {
        const Status status = decode_strips(in, page, plane * page.strips, work, work.planar.bytes());
        if (!status.ok()) {
            return status;
        }
        if (info.type == SampleType::u8) {
            interleave(work.planar.data(), pixels, info.samples, out.data() + plane);
        } else {
            auto* samples = reinterpret_cast<std::uint16_t*>(out.data());
            interleave(work.planar.as<std::uint16_t>(), pixels, info.samples, samples + plane);
        }
    }
    return success();
}

Status count_pages(ConstBytes in, std::uint32_t& pages) noexcept {
    Chain chain{in};
    Status status = chain.begin();
    pages = 0;
    while (status.ok() && !chain.at_end()) {
        ++pages;  // cannot overflow: 4 GiB hold fewer directories
        status = chain.advance();
    }
    return status;
}

Status probe(ConstBytes in, std::uint32_t page, const Limits& limits, ImageInfo& info) noexcept {
    std::uint32_t pages = 0;
    if (const Status status = count_pages(in, pages); !status.ok()) {
        return status;
    }
    if (page >= pages) {
        return failure(Code::shape, "the file has no page {}: it has {}").with(page, pages);
    }
    Chain chain{in};
    Status status = chain.begin();
    for (std::uint32_t i = 0; i < page && status.ok(); ++i) {
        status = chain.advance();
    }
    Page found;
    if (status.ok()) {
        status = chain.read(limits, found);
    }
    info = found.info;
    info.pages = pages;
    return status;
}

}  // namespace chammi::tiff
