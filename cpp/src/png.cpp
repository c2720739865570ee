#include "chammi/png.hpp"

#include <algorithm>
#include <cstring>

#include "chammi/kernels.hpp"
#include "chammi/unpack.hpp"
#include "png_header.hpp"

namespace chammi::png {
namespace {

constexpr std::uint64_t best_ratio = 1032;  // of deflate: 258 bytes by two bits

struct Survey {
    std::uint64_t first = 0;  // offset of the first IDAT chunk
    std::uint64_t total = 0;  // bytes of all of them
    std::uint64_t chunks = 0;
};

// Walks over all chunks once, with every check, before anything is unpacked.
Status survey_chunks(ConstBytes in, Survey& survey) noexcept {
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
        } else if ((chunk.type == ihdr) != first || (is_critical(chunk.type) && !first && chunk.type != plte)) {
            return failure(Code::corrupt, "the PNG has a chunk out of place or of a kind unknown", offset);
        }
        within = chunk.type == idat;
        offset = end_of(chunk);
    }
    return survey.chunks != 0 ? success() : failure(Code::corrupt, "PNG without an IDAT chunk", offset);
}

// Usually the stream is cut into several IDAT chunks, which are then put together in `work.packed`.
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

Status unfilter(const Expansion& expansion, std::uint32_t rows, std::uint64_t row, const std::uint8_t* filtered,
                std::uint64_t at, std::uint8_t* out) noexcept {
    const std::size_t pixel = std::max(std::size_t{expansion.stored} * expansion.depth / 8, std::size_t{1});
    const std::uint32_t bad_row = kernels().unfilter(filtered, out, rows, row, pixel);
    if (bad_row != rows) {
        return failure(Code::corrupt, "row {} of the PNG has an unknown filter", at).with(bad_row);
    }
    return success();
}

// Makes pixels of unfiltered rows, and puts them where they belong.
Status place_pass(const Header& header, const Pass& pass, std::uint64_t at, Workspace& work, Bytes out) noexcept {
    const ImageInfo& info = header.info;
    const Expansion& expansion = header.expansion;
    const std::uint32_t columns = pass.columns(info);
    const std::uint64_t stored_row = expansion.stored_row(columns);
    const std::size_t pixel = expansion.given_pixel();
    if (!work.planar.resize(columns * pixel)) {
        return out_of_memory();
    }
    for (std::uint32_t i = 0; i < pass.rows(info); ++i) {
        std::uint8_t* to = out.data() + ((pass.top + std::uint64_t{i} * pass.down) * info.width + pass.left) * pixel;
        std::uint8_t* expanded = pass.right == 1 ? to : work.planar.data();
        if (!expand_row(expansion, work.packed.data() + i * stored_row, columns, expanded)) {
            return failure(Code::corrupt, "the PNG uses a colour beyond the {} of its palette", at)
                .with(expansion.colours);
        }
        if (pass.right != 1) {
            scatter(expanded, columns, pixel, pass.right, to);
        }
    }
    return success();
}

std::uint64_t filtered_bytes(const Header& header, const Pass& pass) noexcept {
    const std::uint32_t columns = pass.columns(header.info);
    return columns == 0 ? 0 : (header.expansion.stored_row(columns) + 1) * pass.rows(header.info);
}

Status decode_passes(const Header& header, std::uint64_t at, Workspace& work, Bytes out) noexcept {
    const std::uint8_t* filtered = work.unpacked.data();
    const bool direct = !header.info.interlaced && !header.expansion.needed();
    for (const Pass& pass : passes_of(header.info)) {
        const std::uint64_t length = filtered_bytes(header, pass);
        if (length == 0) {
            continue;
        }
        const std::uint64_t row = header.expansion.stored_row(pass.columns(header.info));
        const std::uint32_t rows = pass.rows(header.info);
        if (!direct && !work.packed.resize(row * rows)) {
            return out_of_memory();
        }
        Status status = unfilter(header.expansion, rows, row, filtered, at, direct ? out.data() : work.packed.data());
        if (status.ok() && !direct) {
            status = place_pass(header, pass, at, work, out);
        }
        if (!status.ok()) {
            return status;
        }
        filtered += length;
    }
    return success();
}

}  // namespace

bool has_signature(ConstBytes in) noexcept {
    return in.size() >= signature.size() && std::equal(signature.begin(), signature.end(), in.begin());
}

Status probe(ConstBytes in, const Limits& limits, ImageInfo& info) noexcept {
    Header header;
    const Status status = read_header(in, limits, header);
    info = header.info;
    return status;
}

Status decode(ConstBytes in, const Limits& limits, Workspace& work, ImageInfo& info, Buffer& out) noexcept {
    Header header;
    if (const Status status = read_header(in, limits, header); !status.ok()) {
        return status;
    }
    info = header.info;
    Survey survey;
    if (const Status status = survey_chunks(in, survey); !status.ok()) {
        return status;
    }
    ConstBytes stream;
    if (const Status status = gather(in, survey, work, stream); !status.ok()) {
        return status;
    }
    std::uint64_t needed = 0;
    for (const Pass& pass : passes_of(info)) {
        needed += filtered_bytes(header, pass);
    }
    if (const Status status = inflate(stream, survey.first, needed, work); !status.ok()) {
        return status;
    }
    if (!out.resize(image_bytes(info))) {
        return out_of_memory();
    }
    const Status status = decode_passes(header, survey.first, work, out.bytes());
    if (status.ok() && info.type == SampleType::u16 && native_order == ByteOrder::little) {
        kernels().swap_u16(out.data(), out.size() / 2);
    }
    return status;
}

}  // namespace chammi::png
