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
constexpr std::size_t head_bytes = 8;

// A code's string. It always stands somewhere in the output already; as most strings are short, their first bytes are
// kept here as well, and writing them needs neither a loop nor a look at what was written just before.
struct Entry {
    std::uint64_t head;  // the first bytes, the first one lowest
    std::uint32_t start;
    std::uint32_t length;
};

class BitReader {
 public:
    explicit BitReader(ConstBytes in) noexcept : in_(in) {}

    /// The next `width` bits, or `end_code` where the input is used up.
    unsigned take(unsigned width) noexcept {
        const std::size_t byte = at_ >> 3U;
        std::uint64_t word = 0;
        if (byte + sizeof word <= in_.size()) [[likely]] {
            std::memcpy(&word, in_.data() + byte, sizeof word);
            word = native_order == ByteOrder::big ? word : __builtin_bswap64(word);
        } else {
            if (at_ + width > 8 * in_.size()) {
                return end_code;
            }
            for (std::size_t i = byte; i < in_.size(); ++i) {
                word |= std::uint64_t{in_[i]} << (56U - 8 * (i - byte));
            }
        }
        const auto code = static_cast<unsigned>((word << (at_ & 7U)) >> (64U - width));
        at_ += width;
        return code;
    }

 private:
    ConstBytes in_;
    std::size_t at_ = 0;  // in bits
};

using Table = std::array<Entry, table_size>;

// Writes a string at `at` and returns how much of it `out` took. All that changes is passed by value: what is written
// through a byte pointer could otherwise be taken to change it, and be loaded again each time.
std::size_t emit(const Entry& entry, Bytes out, std::size_t at) noexcept {
    const std::size_t room = out.size() - at;
    std::uint8_t* to = out.data() + at;
    if (room < entry.length + head_bytes) [[unlikely]] {
        for (std::size_t i = 0; i < entry.length && i < room; ++i) {
            to[i] = i < head_bytes ? static_cast<std::uint8_t>(entry.head >> (8 * i)) : out[entry.start + i];
        }
        return entry.length < room ? entry.length : room;
    }
    const std::uint64_t head = native_order == ByteOrder::little ? entry.head : __builtin_bswap64(entry.head);
    std::memcpy(to, &head, sizeof head);
    // In blocks, the last of which may hang over. A string that is its own source starts a block behind at least.
    for (std::size_t done = head_bytes; done < entry.length; done += head_bytes) {
        std::memcpy(to + done, out.data() + entry.start + done, head_bytes);
    }
    return entry.length;
}

// The previous string and the first byte of the present one.
Entry grown(const Entry& previous, std::uint64_t present_head) noexcept {
    const std::uint64_t last = previous.length < head_bytes ? (present_head & 0xFFU) << (8 * previous.length) : 0;
    return {previous.head | last, previous.start, previous.length + 1};
}

UnpackResult decode(ConstBytes in, Bytes out) noexcept {
    Table table;  // set up to `next`
    for (unsigned code = 0; code < clear_code; ++code) {
        table[code] = {code, 0, 1};
    }
    BitReader bits{in};
    unsigned next = first_free;
    unsigned width = narrowest;
    Entry previous{};  // of length 0 behind a clear code
    std::size_t at = 0;
    while (at < out.size()) {
        const unsigned code = bits.take(width);
        if ((code & ~1U) == clear_code) [[unlikely]] {
            if (code == end_code) {
                break;
            }
            next = first_free;
            width = narrowest;
            previous.length = 0;
            continue;
        }
        if (previous.length == 0 ? code > clear_code : code > next) [[unlikely]] {
            return {Unpacked::corrupt, at};
        }
        if (previous.length != 0 && next < table_size) [[likely]] {
            // Where the present code is the one being defined, it begins as the previous string does.
            table[next] = grown(previous, code < next ? table[code].head : previous.head);
            ++next;
            width += static_cast<unsigned>(next + 1 == (1U << width) && width < widest);
        }
        const Entry entry = table[code];
        previous = {entry.head, static_cast<std::uint32_t>(at), entry.length};
        at += emit(entry, out, at);
    }
    return {Unpacked::complete, at};
}

}  // namespace

bool is_old_lzw(ConstBytes in) noexcept {
    // Both kinds begin with the clear code, 256: here its nine bits read from the low end.
    return in.size() >= 2 && in[0] == 0 && (in[1] & 1U) != 0;
}

UnpackResult unpack_lzw(ConstBytes in, Bytes out) noexcept {
    if (out.size() > std::numeric_limits<std::uint32_t>::max()) {
        return {Unpacked::no_memory, 0};
    }
    return decode(in, out);
}

}  // namespace chammi
