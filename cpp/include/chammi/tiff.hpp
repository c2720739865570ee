#pragma once

#include <algorithm>
#include <cstdint>

#include "chammi/bytes.hpp"
#include "chammi/image.hpp"
#include "chammi/status.hpp"
#include "chammi/workspace.hpp"

namespace chammi::tiff {

bool has_signature(ConstBytes in) noexcept;

/// How a file writes its numbers.
struct Notation {
    ByteOrder order = ByteOrder::little;
    bool big = false;  // BigTIFF: offsets and counts of 64 bits
};

/// Values of one tag, not read yet; `offset` is where they stand in the file. Its bounds were checked.
struct Field {
    std::uint16_t type = 0;  // 0: the tag is absent
    std::uint64_t count = 0;
    std::uint64_t offset = 0;
};

/// Where one of a field's values stands in the file.
std::uint64_t place_of(const Field& field, std::uint64_t index) noexcept;

/// A whole number among a field's values.
std::uint64_t value_at(ConstBytes in, ByteOrder order, const Field& field, std::uint64_t index) noexcept;

/// One image file directory, as far as decoding needs it. Its segments are strips or tiles.
struct Page {
    ImageInfo info;
    Field offsets;
    Field byte_counts;
    std::uint32_t segment_height = 0;  // pixels; the last segments may hang over the image
    std::uint32_t segment_width = 0;
    std::uint64_t across = 0;    // segments side by side
    std::uint64_t down = 0;      // ... and one under the other, per plane where samples are planar
    std::uint64_t shift = 0;     // bytes to add to all offsets
    std::uint32_t stack = 1;     // pages in a row at this place, as ImageJ writes without listing them
    bool reversed_bits = false;  // the first pixel is the lowest bit of a byte

    [[nodiscard]] bool tiled() const noexcept { return info.tile_width != 0; }
};

/// A walk along the chain of pages. Every step is checked; a chain that loops is an error.
class Chain {
 public:
    Chain(ConstBytes in, const Limits& limits) noexcept : in_(in), limits_(limits) {}

    /// Reads the file's header and steps to page 0.
    Status begin() noexcept;
    /// Steps to the next page; at_end() afterwards where there is none.
    Status advance() noexcept;
    [[nodiscard]] bool at_end() const noexcept { return offset_ == 0; }
    /// Reads the directory of the page stood at. `info.pages` is left at 1.
    Status read(Page& page) const noexcept;

 private:
    Status next_directory(std::uint64_t& next, std::uint64_t& length) const noexcept;

    ConstBytes in_;
    Limits limits_;
    Notation notation_;
    std::uint64_t offset_ = 0;
    std::uint64_t walked_ = 0;  // bytes of the directories left behind
    // Brent's cycle search: the walk has looped when it meets the offset it stood at a power of two steps
    // ago.
    std::uint64_t landmark_ = 0;
    std::uint64_t steps_ = 0;
    std::uint64_t lap_ = 1;
    // ImageJ's stacks have one directory for all their pages.
    Page stack_;
    std::uint32_t place_ = 0;  // in the stack
};

/// Steps to a page and reads it.
Status find_page(ConstBytes in, std::uint32_t page, const Limits& limits, Page& found) noexcept;

Status probe(ConstBytes in, std::uint32_t page, const Limits& limits, ImageInfo& info) noexcept;

/// Bytes outside the images that may be unpacked from a file for `images` bytes of images. Pages of small images in
/// large tiles are sound, however many there are: what lies outside the images is nothing, which the usual codecs pack
/// a thousandfold. As much is granted for each byte of the file, up to a multiple of the pixels that a file may have.
inline std::uint64_t affordable_excess(std::uint64_t file, std::uint64_t images, const Limits& limits) noexcept {
    constexpr std::uint64_t least = std::uint64_t{1} << 26U;
    constexpr std::uint64_t packed = 1024;
    constexpr std::uint64_t most = 32;
    const std::uint64_t pixels = std::min(limits.pixels, std::uint64_t{1} << 56U);
    const std::uint64_t worth = std::min(file, std::uint64_t{1} << 53U) * packed;
    return least + std::max({3 * images, pixels, std::min(worth, pixels * most)});
}

/// A file whose pages are decoded, and how much of what makes no pixel may still be gone through: strips may share
/// their bytes, so that a small file could ask for any amount of work.
struct Source {
    ConstBytes in;
    std::uint64_t packed_left;  // packed bytes, beyond about those that the pixels are worth
    std::uint64_t excess_left;  // unpacked bytes outside the images: tiles' overhang, strips filled up

    /// `bytes` are those of all images to be decoded.
    Source(ConstBytes file, const Limits& limits, std::uint64_t bytes) noexcept
        : in(file), packed_left(file.size()), excess_left(affordable_excess(file.size(), bytes, limits)) {}
};

/// The pixels of a page that stand in the file as decode_page would leave them; empty where they do not.
ConstBytes find_plain(ConstBytes in, const Page& page) noexcept;

/// Whether the page's tiles hold more beyond their image than may still be decoded; told with the place of their list.
Status check_overhang(const Source& source, const Page& page) noexcept;

/// Fills `out`, image_bytes(page.info) long, with (height, width, samples) in native byte order.
Status decode_page(Source& source, const Page& page, Workspace& work, Bytes out) noexcept;

}  // namespace chammi::tiff
