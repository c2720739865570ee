#include <cstdint>

#include "chammi/tiff.hpp"

namespace chammi::tiff {
namespace {

bool is_plain(const Page& page) noexcept {
    const ImageInfo& info = page.info;
    const std::uint32_t bytes = sample_bytes(info.type);
    return info.compression == Compression::none && !page.tiled() && !info.planar && !info.inverted &&
           !page.reversed_bits && page.stack == 1 && page.shift == 0 && info.bits == 8 * bytes &&
           (bytes == 1 || info.order == native_order);
}

// One strip follows the other, and each has all bytes of its rows.
bool is_one_piece(ConstBytes in, const Page& page, std::uint64_t first) noexcept {
    const ImageInfo& info = page.info;
    const std::uint64_t strip = row_bytes(info) * page.segment_height;
    std::uint64_t left = image_bytes(info);
    for (std::uint64_t i = 0; i < page.down; ++i) {
        const std::uint64_t needed = left < strip ? left : strip;
        if (value_at(in, info.order, page.offsets, i) != first + i * strip ||
            (page.byte_counts.type != 0 && value_at(in, info.order, page.byte_counts, i) < needed)) {
            return false;
        }
        left -= needed;
    }
    return true;
}

}  // namespace

ConstBytes find_plain(ConstBytes in, const Page& page) noexcept {
    if (!is_plain(page)) {
        return {};
    }
    const std::uint64_t first = value_at(in, page.info.order, page.offsets, 0);
    const std::uint64_t length = image_bytes(page.info);
    if (first == 0 || !lies_within(first, length, in.size())) {
        return {};
    }
    const ConstBytes pixels = in.subspan(first, length);
    const bool aligned = reinterpret_cast<std::uintptr_t>(pixels.data()) % sample_bytes(page.info.type) == 0;
    return aligned && is_one_piece(in, page, first) ? pixels : ConstBytes{};
}

}  // namespace chammi::tiff
