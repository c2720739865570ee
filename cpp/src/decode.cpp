#include "chammi/decode.hpp"

#include <cstring>
#include <utility>

#include "chammi/png.hpp"
#include "chammi/tiff.hpp"
#include "sample_types.hpp"

namespace chammi {
namespace {

Status unknown_format(ConstBytes in) noexcept {
    if (in.empty()) {
        return failure(Code::truncated, "the file is empty", 0);
    }
    if (in.size() < 8) {
        return failure(Code::truncated, "the file has only {} bytes, too few for an image", in.size())
            .with(static_cast<std::int64_t>(in.size()));
    }
    return failure(Code::unsupported, "the file is neither PNG nor TIFF", 0);
}

Status single_page(std::uint32_t page) noexcept {
    return page == 0 ? success() : failure(Code::shape, "the file has no page {}: it has {}").with(page, 1);
}

Status decode_tiff(ConstBytes in, const tiff::Page& page, const Limits& limits, Workspace& work, Buffer& out) noexcept {
    const std::uint64_t bytes = image_bytes(page.info);
    tiff::Source source{in, limits, bytes};
    return out.resize(bytes) ? tiff::decode_page(source, page, work, out.bytes()) : out_of_memory();
}

bool same_shape(const ImageInfo& a, const ImageInfo& b) noexcept {
    return a.width == b.width && a.height == b.height && a.samples == b.samples && a.type == b.type;
}

// One sample per pixel and room for `pages` within the limits.
Status check_stack(const ImageInfo& info, std::uint32_t pages, const Limits& limits) noexcept {
    if (info.samples != 1) {
        return failure(Code::shape, "the file has {} pages of {} samples each: channels are either pages or samples")
            .with(pages, info.samples);
    }
    std::uint64_t values = 0;
    if (!multiply(std::uint64_t{info.width} * info.height, pages, values) || !limits.allow(values)) {
        return failure(Code::limit, "{} pages of {} x {} pixels exceed the pixel limit")
            .with(pages, info.height, info.width);
    }
    return success();
}

Status decode_tape(ConstBytes in, std::uint32_t channel_width, const Limits& limits, Workspace& work,
                   Planes& planes) noexcept {
    ImageInfo info;
    if (const Status status = probe(in, 0, limits, info); !status.ok()) {
        return status;
    }
    if (info.samples != 1 || info.pages != 1) {
        return failure(Code::shape, "a tape is one page of one sample per pixel, this file has {} of {}")
            .with(info.pages, info.samples);
    }
    if (info.width % channel_width != 0) {
        return failure(Code::shape, "the tape's width of {} pixels is not a multiple of the channel width {}")
            .with(info.width, channel_width);
    }
    ConstBytes pixels;
    if (const Status status = decode_or_view(in, 0, limits, work, info, work.image, pixels); !status.ok()) {
        return status;
    }
    planes = {pixels.data(), info.type, info.width / channel_width, info.height, channel_width,
              channel_width, info.width};
    return success();
}

template <typename T>
void separate(const T* interleaved, std::uint64_t pixels, std::uint32_t samples, T* out) noexcept {
    for (std::uint32_t sample = 0; sample < samples; ++sample) {
        for (std::uint64_t i = 0; i < pixels; ++i) {
            out[sample * pixels + i] = interleaved[i * samples + sample];
        }
    }
}

Status decode_samples(ConstBytes in, const Limits& limits, Workspace& work, Planes& planes) noexcept {
    ImageInfo info;
    ConstBytes samples;
    if (const Status status = decode_or_view(in, 0, limits, work, info, work.image, samples); !status.ok()) {
        return status;
    }
    const std::uint64_t pixels = std::uint64_t{info.width} * info.height;
    const std::uint8_t* data = samples.data();
    if (info.samples > 1) {
        if (!work.planar.resize(image_bytes(info))) {
            return out_of_memory();
        }
        with_size_of(info.type, [&]<typename T>(T /*sample*/) {
            separate(reinterpret_cast<const T*>(data), pixels, info.samples, work.planar.as<T>());
        });
        data = work.planar.data();
    }
    planes = {data, info.type, info.samples, info.height, info.width, pixels, info.width};
    return success();
}

}  // namespace

Status probe(ConstBytes in, std::uint32_t page, const Limits& limits, ImageInfo& info) noexcept {
    if (png::has_signature(in)) {
        const Status status = png::probe(in, limits, info);
        return status.ok() ? single_page(page) : status;
    }
    return tiff::has_signature(in) ? tiff::probe(in, page, limits, info) : unknown_format(in);
}

Status decode(ConstBytes in, std::uint32_t page, const Limits& limits, Workspace& work, ImageInfo& info,
              Buffer& out) noexcept {
    if (tiff::has_signature(in)) {
        tiff::Page found;
        const Status status = tiff::find_page(in, page, limits, found);
        info = found.info;
        return status.ok() ? decode_tiff(in, found, limits, work, out) : status;
    }
    if (!png::has_signature(in)) {
        return unknown_format(in);
    }
    const Status status = png::decode(in, limits, work, info, out);
    return status.ok() ? single_page(page) : status;
}

Status decode_or_view(ConstBytes in, std::uint32_t page, const Limits& limits, Workspace& work, ImageInfo& info,
                      Buffer& out, ConstBytes& pixels) noexcept {
    Status status;
    if (tiff::has_signature(in)) {
        tiff::Page found;
        status = tiff::find_page(in, page, limits, found);
        info = found.info;
        pixels = status.ok() ? tiff::find_plain(in, found) : ConstBytes{};
        if (!status.ok() || !pixels.empty()) {
            return status;
        }
        status = decode_tiff(in, found, limits, work, out);
    } else {
        status = decode(in, page, limits, work, info, out);
    }
    pixels = std::as_const(out).bytes();
    return status;
}

Status decode_stack(ConstBytes in, const Limits& limits, Workspace& work, ImageInfo& info, Buffer& out) noexcept {
    if (!tiff::has_signature(in)) {
        return decode(in, 0, limits, work, info, out);
    }
    if (const Status status = tiff::probe(in, 0, limits, info); !status.ok()) {
        return status;
    }
    if (const Status status = check_stack(info, info.pages, limits); !status.ok()) {
        return status;
    }
    const std::uint64_t each = image_bytes(info);
    if (!out.resize(each * info.pages)) {
        return out_of_memory();
    }
    tiff::Source source{in, limits, each * info.pages};
    tiff::Chain chain{in, limits};
    Status status = chain.begin();
    for (std::uint32_t i = 0; i < info.pages && status.ok(); ++i) {
        tiff::Page page;
        status = chain.read(page);
        if (status.ok() && !same_shape(page.info, info)) {
            return failure(Code::shape, "page {} differs from page 0 in size or type: pages cannot be channels")
                .with(i);
        }
        if (status.ok()) {
            status = tiff::decode_page(source, page, work, out.bytes().subspan(i * each, each));
        }
        if (status.ok()) {
            status = chain.advance();
        }
    }
    return status;
}

Status decode_planes(ConstBytes in, std::uint32_t channel_width, const Limits& limits, Workspace& work,
                     Planes& planes) noexcept {
    if (channel_width != 0) {
        return decode_tape(in, channel_width, limits, work, planes);
    }
    ImageInfo info;
    if (const Status status = probe(in, 0, limits, info); !status.ok()) {
        return status;
    }
    if (info.pages == 1) {
        return decode_samples(in, limits, work, planes);
    }
    if (const Status status = decode_stack(in, limits, work, info, work.image); !status.ok()) {
        return status;
    }
    planes = {work.image.data(), info.type,  info.pages,
              info.height,       info.width, std::uint64_t{info.width} * info.height,
              info.width};
    return success();
}

}  // namespace chammi
