#pragma once

#include <cstdint>

#include "chammi/bytes.hpp"
#include "chammi/image.hpp"
#include "chammi/status.hpp"
#include "chammi/workspace.hpp"

namespace chammi::tiff {

bool has_signature(ConstBytes in) noexcept;

/// Values of one tag, not read yet; `offset` is where they stand in the file. Its bounds were checked.
struct Field {
    std::uint16_t type = 0;  // 0: the tag is absent
    std::uint64_t count = 0;
    std::uint64_t offset = 0;
};

/// One image file directory, as far as decoding needs it.
struct Page {
    ImageInfo info;
    Field strip_offsets;
    Field strip_byte_counts;
    std::uint64_t strips = 0;  // per plane where samples are planar
};

/// A walk along the chain of pages. Every step is checked; a chain that loops is an error.
class Chain {
 public:
    explicit Chain(ConstBytes in) noexcept : in_(in) {}

    /// Reads the file's header and steps to page 0.
    Status begin() noexcept;
    /// Steps to the next page; at_end() afterwards where there is none.
    Status advance() noexcept;
    [[nodiscard]] bool at_end() const noexcept { return offset_ == 0; }
    /// Reads the directory of the page stood at. `info.pages` is left at 1.
    Status read(const Limits& limits, Page& page) const noexcept;
    [[nodiscard]] ByteOrder order() const noexcept { return order_; }

 private:
    ConstBytes in_;
    ByteOrder order_ = ByteOrder::little;
    std::uint64_t offset_ = 0;
    // Brent's cycle search: the walk has looped when it meets the offset it stood at a power of two steps
    // ago.
    std::uint64_t landmark_ = 0;
    std::uint64_t steps_ = 0;
    std::uint64_t lap_ = 1;
};

Status count_pages(ConstBytes in, std::uint32_t& pages) noexcept;

Status probe(ConstBytes in, std::uint32_t page, const Limits& limits, ImageInfo& info) noexcept;

/// Fills `out`, image_bytes(page.info) long, with (height, width, samples) in native byte order.
Status decode_page(ConstBytes in, const Page& page, Workspace& work, Bytes out) noexcept;

}  // namespace chammi::tiff
