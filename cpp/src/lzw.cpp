#include <array>
#include <cstdint>
#include <cstring>
#include <limits>

#include "chammi/unpack.hpp"

namespace chammi {
namespace {

constexpr unsigned clear_code = 256;
constexpr unsigned end_code = 257;
constexpr unsigned first_free = 258;
constexpr unsigned narrowest = 9;
constexpr unsigned widest = 12;
constexpr unsigned table_size = 1U << widest;

// A code's string always stands somewhere in the output already, so the table only says where.
struct Entry {
    std::uint32_t start;
    std::uint32_t length;
};

class BitReader {
 public:
    explicit BitReader(ConstBytes in) noexcept : next_(in.data()), end_(in.data() + in.size()) {}

    /// The next `width` bits, or `end_code` where the input is used up.
    unsigned take(unsigned width) noexcept {
        if (held_ < width) {
            refill();
            if (held_ < width) {
                return end_code;
            }
        }
        const auto code = static_cast<unsigned>(bits_ >> (64U - width));
        bits_ <<= width;
        held_ -= width;
        return code;
    }

 private:
    void refill() noexcept {
        if (end_ - next_ >= 4) {
            bits_ |= std::uint64_t{load_u32(next_, ByteOrder::big)} << (32U - held_);
            next_ += 4;
            held_ += 32;
            return;
        }
        while (next_ != end_) {
            bits_ |= std::uint64_t{*next_++} << (56U - held_);
            held_ += 8;
        }
    }

    const std::uint8_t* next_;
    const std::uint8_t* end_;
    std::uint64_t bits_ = 0;  // unread bits from the top
    unsigned held_ = 0;       // at most 11 when refilled
};

// Copies in blocks where the output has room for the last block's overhang; `from` ends at or before `to`.
void copy_string(std::uint8_t* to, const std::uint8_t* from, std::size_t length, std::size_t room) noexcept {
    constexpr std::size_t block = 8;
    if (room < length + block) {
        std::memcpy(to, from, length < room ? length : room);
        return;
    }
    for (std::size_t done = 0; done < length; done += block) {
        std::memcpy(to + done, from + done, block);
    }
}

class Decoder {
 public:
    Decoder(ConstBytes in, Bytes out) noexcept : bits_(in), out_(out) {}

    UnpackResult run() noexcept {
        while (at_ < out_.size()) {
            const unsigned code = bits_.take(width_);
            if (code == end_code) {
                break;
            }
            if (code == clear_code) {
                next_ = first_free;
                width_ = narrowest;
                previous_ = {0, 0};
                continue;
            }
            if (!emit(code)) {
                return {Unpacked::corrupt, at_};
            }
        }
        return {Unpacked::complete, at_};
    }

 private:
    bool emit(unsigned code) noexcept {
        const auto start = static_cast<std::uint32_t>(at_);
        std::uint32_t length = 1;
        if (code < clear_code) {
            out_[at_] = static_cast<std::uint8_t>(code);
        } else if (code < next_) {
            const Entry entry = table_[code];
            length = entry.length;
            copy_string(out_.data() + at_, out_.data() + entry.start, length, out_.size() - at_);
        } else if (code == next_ && previous_.length != 0) {
            // The string that is about to be defined: the previous one and its own first byte again.
            length = previous_.length + 1;
            copy_string(out_.data() + at_, out_.data() + previous_.start, previous_.length, out_.size() - at_);
            if (at_ + previous_.length < out_.size()) {
                out_[at_ + previous_.length] = out_[previous_.start];
            }
        } else {
            return false;
        }
        if (previous_.length != 0 && next_ < table_size) {
            table_[next_++] = {previous_.start, previous_.length + 1};
            if (next_ + 1 == (1U << width_) && width_ < widest) {
                ++width_;
            }
        }
        previous_ = {start, length};
        at_ = length < out_.size() - at_ ? at_ + length : out_.size();
        return true;
    }

    BitReader bits_;
    Bytes out_;
    std::size_t at_ = 0;
    unsigned next_ = first_free;
    unsigned width_ = narrowest;
    Entry previous_{0, 0};
    std::array<Entry, table_size> table_;
};

}  // namespace

bool is_old_lzw(ConstBytes in) noexcept {
    // Both kinds begin with the clear code, 256: here its nine bits read from the low end.
    return in.size() >= 2 && in[0] == 0 && (in[1] & 1U) != 0;
}

UnpackResult unpack_lzw(ConstBytes in, Bytes out) noexcept {
    if (out.size() > std::numeric_limits<std::uint32_t>::max()) {
        return {Unpacked::no_memory, 0};
    }
    Decoder decoder{in, out};
    return decoder.run();
}

}  // namespace chammi
