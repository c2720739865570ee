#include <algorithm>
#include <cstring>
#include <limits>

#include "chammi/tiff.hpp"
#include "chammi/unpack.hpp"
#include "predictor.hpp"
#include "sample_types.hpp"

namespace chammi::tiff {
namespace {

// The bytes of one strip or tile as they stand in the file.
struct Segment {
    ConstBytes packed;
    std::uint64_t index = 0;
    std::uint64_t offset = 0;
    bool cut = false;  // the file ends before the segment does
};

struct Geometry {
    std::uint32_t samples = 1;     // interleaved within a segment
    std::uint64_t stored_row = 0;  // bytes of one row of one segment in the file
    std::uint64_t row = 0;         // ... once decoded
    bool direct = false;           // rows can be unpacked to where they belong

    explicit Geometry(const Page& page) noexcept
        : samples(page.info.planar ? 1 : page.info.samples),
          stored_row((std::uint64_t{page.segment_width} * samples * page.info.bits + 7) / 8),
          row(std::uint64_t{page.segment_width} * samples * sample_bytes(page.info.type)),
          direct(!page.tiled() && page.info.bits % 8 == 0) {}
};

// Where a segment's pixels belong in the image or plane.
struct Place {
    std::uint64_t top = 0;
    std::uint64_t left = 0;
    std::uint64_t rows = 0;
    std::uint64_t columns = 0;
};

Status blame(const Page& page, const Segment& segment, Code code, const char* strip, const char* tile) noexcept {
    return failure(code, page.tiled() ? tile : strip, segment.offset).with(static_cast<std::int64_t>(segment.index));
}

Status find_segment(ConstBytes in, const Page& page, std::uint64_t needed, Segment& segment) noexcept {
    const ByteOrder order = page.info.order;
    const bool counted = page.byte_counts.type != 0 && page.stack == 1;
    const std::uint64_t start = value_at(in, order, page.offsets, segment.index);
    std::uint64_t length = counted ? value_at(in, order, page.byte_counts, segment.index) : needed;
    if (__builtin_add_overflow(start, page.shift, &segment.offset) || segment.offset >= in.size()) {
        segment.offset = start;
        return blame(page, segment, Code::truncated, "TIFF strip {} lies beyond the end of the file",
                     "TIFF tile {} lies beyond the end of the file");
    }
    if (start == 0 || length == 0) {  // in sparse files both are, and the pixels whatever their programs take for 0
        segment.offset = place_of(start == 0 ? page.offsets : page.byte_counts, segment.index);
        return blame(page, segment, Code::corrupt, "TIFF strip {} is empty", "TIFF tile {} is empty");
    }
    segment.cut = length > in.size() - segment.offset;
    if (segment.cut) {
        length = in.size() - segment.offset;
    }
    segment.packed = in.subspan(segment.offset, length);
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

// Some writers fill up the last strip to the height of the others; tiles are whole already. Codecs that check their
// streams need room for all of it, which is then `work.unpacked`; where `out` is the start of that, it moves there.
UnpackResult unpack_excess(Source& source, const Page& page, ConstBytes packed, Bytes out, Workspace& work) noexcept {
    constexpr std::uint64_t little = std::uint64_t{1} << 26U;
    const Compression compression = page.info.compression;
    const UnpackResult result = unpack(compression, packed, out, work);
    if (result.outcome != Unpacked::overflow) {
        return result;
    }
    const std::size_t length = out.size();
    const bool staged = out.data() == work.unpacked.data();
    const std::uint64_t filled = page.tiled() ? 0 : 3 * std::uint64_t{length};
    const std::uint64_t room = std::min(source.excess_left, little + filled);
    if (!work.unpacked.resize(length + room)) {
        return {Unpacked::no_memory, 0};
    }
    const UnpackResult whole = unpack(compression, packed, work.unpacked.bytes(), work);
    if (whole.outcome != Unpacked::complete || whole.written <= length) {
        return whole;
    }
    source.excess_left -= whole.written - length;
    if (!staged) {
        std::memcpy(out.data(), work.unpacked.data(), length);
    }
    return {Unpacked::complete, length};
}

// Takes what is longer than its `pixels` bytes in the image are worth from what may still be read. What lies outside
// is not worth any: a file whose segments are its own has enough for it.
bool afford(Source& source, std::uint64_t packed, std::uint64_t pixels) noexcept {
    constexpr std::uint64_t frame = 64;  // headers and checksums of any codec
    const std::uint64_t fair = 2 * pixels + frame;
    const std::uint64_t more = packed > fair ? packed - fair : 0;
    const bool affordable = more <= source.packed_left;
    source.packed_left -= affordable ? more : 0;
    return affordable;
}

// Turns what was unpacked, of which `needed` bytes must be there, into a status.
Status judge(const Page& page, const Segment& segment, const UnpackResult& result, std::uint64_t needed) noexcept {
    if (result.outcome == Unpacked::no_memory) {
        return out_of_memory();
    }
    if (result.outcome == Unpacked::complete && result.written >= needed) {
        return success();
    }
    if (segment.cut) {
        return blame(page, segment, Code::truncated, "the file ends within TIFF strip {}",
                     "the file ends within TIFF tile {}");
    }
    if (result.outcome == Unpacked::complete) {
        return blame(page, segment, Code::corrupt, "TIFF strip {} holds {} bytes where {} are needed",
                     "TIFF tile {} holds {} bytes where {} are needed")
            .with(static_cast<std::int64_t>(segment.index), static_cast<std::int64_t>(result.written),
                  static_cast<std::int64_t>(needed));
    }
    // Too long or broken is one finding: of a stream that is both, the libraries may see either first.
    return blame(page, segment, Code::corrupt, "the compressed data of TIFF strip {} is broken or too long",
                 "the compressed data of TIFF tile {} is broken or too long");
}

// How many bytes of a segment there must be, and how many of them are the image's.
struct Worth {
    std::uint64_t needed = 0;
    std::uint64_t pixels = 0;
};

Status read_segment(Source& source, const Page& page, Segment& segment, const Worth& worth, Bytes out,
                    Workspace& work) noexcept {
    const Compression compression = page.info.compression;
    const std::uint64_t needed = worth.needed;
    if (compression == Compression::none && segment.packed.size() > needed) {
        segment.packed = segment.packed.first(needed);
    }
    if (!afford(source, segment.packed.size(), worth.pixels)) {
        return blame(page, segment, Code::corrupt, "TIFF strip {} shares too many bytes with others",
                     "TIFF tile {} shares too many bytes with others");
    }
    if (page.reversed_bits) {
        if (!work.packed.resize(segment.packed.size())) {
            return out_of_memory();
        }
        reverse_bits(segment.packed, work.packed.bytes());
        segment.packed = work.packed.bytes();
    }
    if (compression == Compression::lzw && is_old_lzw(segment.packed)) {
        return failure(Code::unsupported, "TIFF with LZW of the kind used before 1992 is not supported",
                       segment.offset);
    }
    return judge(page, segment, unpack_excess(source, page, segment.packed, out, work), needed);
}

// Makes native samples of unpacked rows, in their place.
Status finish_rows(const Page& page, const Geometry& geometry, Bytes rows, Workspace& work) noexcept {
    const ImageInfo& info = page.info;
    const std::uint32_t sample = sample_bytes(info.type);
    if (info.predictor == 3) {
        if (!work.packed.resize(geometry.row)) {
            return out_of_memory();
        }
        for (std::uint64_t at = 0; at < rows.size(); at += geometry.row) {
            undo_float_differences(rows.subspan(at, geometry.row), sample, geometry.samples, work.packed.bytes());
        }
        return success();
    }
    if (info.bits % 8 == 0 && sample > 1 && info.order != native_order) {
        swap_samples(rows, sample);
    }
    if (info.predictor == 2) {
        for (std::uint64_t at = 0; at < rows.size(); at += geometry.row) {
            undo_differences(rows.subspan(at, geometry.row), sample, geometry.samples);
        }
    }
    return success();
}

// Samples of one bit become 0 and `one`.
void unpack_bits(const std::uint8_t* from, std::uint64_t values, std::uint8_t one, std::uint8_t* out) noexcept {
    for (std::uint64_t i = 0; i < values; ++i) {
        const unsigned byte = from[i / 8];
        out[i] = (byte >> (7 - i % 8) & 1U) != 0 ? one : 0;
    }
}

// Samples of 9 to 15 bits, in the same order whatever the file's byte order.
void unpack_between(const std::uint8_t* from, std::uint64_t values, unsigned bits, std::uint16_t* out) noexcept {
    std::uint32_t held = 0;
    unsigned count = 0;
    for (std::uint64_t i = 0; i < values; ++i) {
        for (; count < bits; count += 8) {
            held = held << 8U | *from++;
        }
        count -= bits;
        out[i] = static_cast<std::uint16_t>(held >> count & ((1U << bits) - 1));
    }
}

// Moves one row of a segment to where it belongs.
void put_row(const ImageInfo& info, const std::uint8_t* from, std::uint64_t values, std::uint8_t* out) noexcept {
    if (info.bits % 8 == 0) {
        std::memcpy(out, from, values * sample_bytes(info.type));
    } else if (info.bits == 1) {
        unpack_bits(from, values, info.expanded ? 255 : 1, out);
    } else {
        unpack_between(from, values, info.bits, reinterpret_cast<std::uint16_t*>(out));
    }
}

Status decode_direct(Source& source, const Page& page, const Place& place, Segment& segment, Workspace& work,
                     Bytes out) noexcept {
    const Geometry geometry{page};
    const Bytes rows = out.subspan(place.top * geometry.row, place.rows * geometry.row);
    Status status = find_segment(source.in, page, rows.size(), segment);
    if (status.ok()) {
        status = read_segment(source, page, segment, {rows.size(), rows.size()}, rows, work);
    }
    return status.ok() ? finish_rows(page, geometry, rows, work) : status;
}

Status decode_staged(Source& source, const Page& page, const Place& place, Segment& segment, Workspace& work,
                     Bytes out) noexcept {
    const Geometry geometry{page};
    // A tile is stored whole; of the last strip, only the rows that the image has.
    const std::uint64_t needed = geometry.stored_row * (page.tiled() ? page.segment_height : place.rows);
    Status status = find_segment(source.in, page, needed, segment);
    if (status.ok() && !work.unpacked.resize(geometry.stored_row * page.segment_height)) {
        status = out_of_memory();
    }
    if (status.ok()) {
        const std::uint64_t bits = place.columns * geometry.samples * page.info.bits;
        const Worth worth{needed, (bits + 7) / 8 * place.rows};
        status = read_segment(source, page, segment, worth, work.unpacked.bytes(), work);
    }
    if (status.ok()) {
        status = finish_rows(page, geometry, work.unpacked.bytes().first(geometry.stored_row * place.rows), work);
    }
    if (!status.ok()) {
        return status;
    }
    const std::uint64_t pixel = std::uint64_t{geometry.samples} * sample_bytes(page.info.type);
    for (std::uint64_t y = 0; y < place.rows; ++y) {
        std::uint8_t* to = out.data() + ((place.top + y) * page.info.width + place.left) * pixel;
        put_row(page.info, work.unpacked.data() + y * geometry.stored_row, place.columns * geometry.samples, to);
    }
    return success();
}

// Decodes the segments from `first` on, which make up an image or one plane of it.
Status decode_segments(Source& source, const Page& page, std::uint64_t first, Workspace& work, Bytes out) noexcept {
    const ImageInfo& info = page.info;
    const bool direct = Geometry{page}.direct;
    for (std::uint64_t y = 0; y < page.down; ++y) {
        for (std::uint64_t x = 0; x < page.across; ++x) {
            Place place{y * page.segment_height, x * page.segment_width, 0, 0};
            place.rows = std::min<std::uint64_t>(page.segment_height, info.height - place.top);
            place.columns = std::min<std::uint64_t>(page.segment_width, info.width - place.left);
            Segment segment;
            segment.index = first + y * page.across + x;
            const Status status = direct ? decode_direct(source, page, place, segment, work, out)
                                         : decode_staged(source, page, place, segment, work, out);
            if (!status.ok()) {
                return status;
            }
        }
    }
    if (info.inverted) {
        for (std::uint8_t& value : out) {
            value = static_cast<std::uint8_t>(~value);
        }
    }
    return success();
}

// Bytes of the tiles outside the image. Counted in pixels first: those of one tile are within the limits, and tiles are
// as many as fit into the image and one more each way.
std::uint64_t overhang(const Page& page) noexcept {
    if (!page.tiled()) {
        return 0;
    }
    const std::uint64_t pixels = page.across * page.segment_width * (page.down * page.segment_height);
    const std::uint64_t outside = pixels - std::uint64_t{page.info.width} * page.info.height;
    const std::uint64_t pixel = std::uint64_t{page.info.samples} * sample_bytes(page.info.type);
    std::uint64_t bytes = 0;
    return multiply(outside, pixel, bytes) ? bytes : std::numeric_limits<std::uint64_t>::max();
}

template <typename T>
void interleave(const T* plane, std::uint64_t pixels, std::uint32_t samples, T* out) noexcept {
    for (std::uint64_t i = 0; i < pixels; ++i) {
        out[i * samples] = plane[i];
    }
}

}  // namespace

Status check_overhang(const Source& source, const Page& page) noexcept {
    if (overhang(page) > source.excess_left) {
        return failure(Code::limit, "tiles of {} x {} pixels hold far more than their image", page.offsets.offset)
            .with(page.info.tile_height, page.info.tile_width);
    }
    return success();
}

Status decode_page(Source& source, const Page& page, Workspace& work, Bytes out) noexcept {
    const ImageInfo& info = page.info;
    if (const Status status = check_overhang(source, page); !status.ok()) {
        return status;
    }
    source.excess_left -= overhang(page);
    if (!info.planar) {
        return decode_segments(source, page, 0, work, out);
    }
    const std::uint64_t pixels = std::uint64_t{info.width} * info.height;
    if (!work.planar.resize(pixels * sample_bytes(info.type))) {
        return out_of_memory();
    }
    for (std::uint32_t plane = 0; plane < info.samples; ++plane) {
        const Status status = decode_segments(source, page, plane * page.across * page.down, work, work.planar.bytes());
        if (!status.ok()) {
            return status;
        }
        with_size_of(info.type, [&]<typename T>(T /*sample*/) {
            interleave(work.planar.as<T>(), pixels, info.samples, reinterpret_cast<T*>(out.data()) + plane);
        });
    }
    return success();
}

}  // namespace chammi::tiff
