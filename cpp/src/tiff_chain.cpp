#include <limits>

#include "tiff_tags.hpp"

namespace chammi::tiff {
namespace {

Status absent_page(std::uint32_t page, std::uint32_t pages) noexcept {
    return failure(Code::shape, "the file has no page {}: it has {}").with(page, pages);
}

}  // namespace

bool has_signature(ConstBytes in) noexcept {
    return in.size() >= 4 &&
           ((in[0] == 'I' && in[1] == 'I' && in[3] == 0) || (in[0] == 'M' && in[1] == 'M' && in[2] == 0)) &&
           (in[in[0] == 'I' ? 2 : 3] == 42 || in[in[0] == 'I' ? 2 : 3] == 43);
}

Status Chain::begin() noexcept {
    notation_.order = in_[0] == 'I' ? ByteOrder::little : ByteOrder::big;
    notation_.big = load_u16(in_.data() + 2, notation_.order) == 43;
    if (in_.size() < (notation_.big ? 16 : 8)) {
        return failure(Code::truncated, "the file ends within the TIFF header", in_.size());
    }
    if (notation_.big &&
        load_u32(in_.data() + 4, notation_.order) != (notation_.order == ByteOrder::little ? 8 : 8U << 16U)) {
        return failure(Code::corrupt, "BigTIFF whose offsets have not 8 bytes", 4);
    }
    offset_ = notation_.big ? load_u64(in_.data() + 8, notation_.order) : load_u32(in_.data() + 4, notation_.order);
    landmark_ = offset_;
    if (offset_ == 0) {
        return failure(Code::corrupt, "TIFF without a page", 4);
    }
    std::uint64_t next = 0;
    std::uint64_t length = 0;
    if (next_directory(next, length).ok() && next == 0 && !read(stack_).ok()) {
        stack_ = Page{};  // whoever reads the page learns what is wrong with it
    }
    return success();
}

Status Chain::next_directory(std::uint64_t& next, std::uint64_t& length) const noexcept {
    std::uint64_t first = 0;
    std::uint64_t entries = 0;
    if (const Status status = find_entries(in_, notation_, offset_, first, entries); !status.ok()) {
        return status;
    }
    const std::uint64_t after = first + entries * entry_bytes(notation_);
    if (!lies_within(after, notation_.big ? 8 : 4, in_.size())) {
        return failure(Code::truncated, "the file ends within the directory of a TIFF page", offset_);
    }
    length = after + (notation_.big ? 8 : 4) - offset_;
    next =
        notation_.big ? load_u64(in_.data() + after, notation_.order) : load_u32(in_.data() + after, notation_.order);
    return success();
}

Status Chain::advance() noexcept {
    if (place_ + 1 < stack_.stack) {
        ++place_;
        return success();
    }
    const std::uint64_t from = offset_;
    std::uint64_t next = 0;
    std::uint64_t length = 0;
    if (const Status status = next_directory(next, length); !status.ok()) {
        return status;
    }
    walked_ += length;  // directories that overlap could cost their length once for every byte of the file
    if (walked_ > in_.size()) {
        return failure(Code::corrupt, "the chain of TIFF pages loops or overlaps itself", from);
    }
    offset_ = next;
    if (offset_ == landmark_) {
        return failure(Code::corrupt, "the chain of TIFF pages loops", from);
    }
    if (++steps_ == lap_) {
        landmark_ = offset_;
        steps_ = 0;
        lap_ *= 2;
    }
    return success();
}

Status Chain::read(Page& page) const noexcept {
    if (place_ != 0) {
        page = stack_;
        page.shift = place_ * image_bytes(page.info);
        return success();
    }
    Tags tags;
    const Status status = read_tags(in_, notation_, offset_, tags);
    return status.ok() ? interpret(in_, notation_.order, tags, limits_, offset_, page) : status;
}

Status find_page(ConstBytes in, std::uint32_t page, const Limits& limits, Page& found) noexcept {
    Chain chain{in, limits};
    Status status = chain.begin();
    std::uint32_t at = 0;
    for (; at < page && status.ok() && !chain.at_end(); ++at) {
        status = chain.advance();
    }
    if (status.ok() && chain.at_end()) {
        return absent_page(page, at);
    }
    if (status.ok()) {
        status = chain.read(found);
    }
    found.info.pages = page + 1;  // so many are known to exist
    return status;
}

Status probe(ConstBytes in, std::uint32_t page, const Limits& limits, ImageInfo& info) noexcept {
    Chain chain{in, limits};
    Status status = chain.begin();
    Status outcome = success();
    Page found;
    std::uint32_t pages = 0;
    for (; status.ok() && !chain.at_end(); ++pages) {
        if (pages == std::numeric_limits<std::uint32_t>::max()) {  // takes 24 GiB of directories
            return failure(Code::limit, "the file has more pages than can be counted");
        }
        if (pages == page) {
            outcome = chain.read(found);
            if (outcome.ok()) {
                outcome = check_overhang(Source{in, limits, image_bytes(found.info)}, found);
            }
        }
        status = chain.advance();
    }
    if (!status.ok()) {
        return status;
    }
    if (page >= pages) {
        return absent_page(page, pages);
    }
    info = found.info;
    info.pages = pages;
    return outcome;
}

}  // namespace chammi::tiff
