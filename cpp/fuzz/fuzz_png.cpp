#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "chammi/png.hpp"
#include "chammi/unpack.hpp"
#include "decoding.hpp"

// Random bytes never have the right checksums. Besides plain mutations, this harness makes some whose chunks have
// theirs repaired, and some that change the header or the filtered rows and compress them anew.

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

using chammi::ByteOrder;
using chammi::ConstBytes;
using Content = std::vector<std::uint8_t>;

constexpr std::size_t signature_size = 8;
constexpr std::size_t chunk_frame = 12;
constexpr std::array<std::uint8_t, 4> idat{'I', 'D', 'A', 'T'};

void put_u32(Content& to, std::uint32_t value) {
    for (unsigned shift = 32; shift != 0;) {
        shift -= 8;
        to.push_back(static_cast<std::uint8_t>(value >> shift));
    }
}

void put_chunk(Content& to, std::span<const std::uint8_t, 4> type, ConstBytes data) {
    put_u32(to, static_cast<std::uint32_t>(data.size()));
    const auto checked = static_cast<std::ptrdiff_t>(to.size());
    to.insert(to.end(), type.begin(), type.end());
    to.insert(to.end(), data.begin(), data.end());
    put_u32(to, chammi::crc32({to.begin() + checked, to.end()}));
}

// A zlib stream of stored blocks.
Content store(ConstBytes bytes) {
    constexpr std::size_t most = 0xFFFF;
    Content stream{0x78, 0x01};
    std::uint32_t low = 1;  // of Adler-32
    std::uint32_t high = 0;
    for (const std::uint8_t byte : bytes) {
        low = (low + byte) % 65521;
        high = (high + low) % 65521;
    }
    for (bool last = false; !last;) {
        const ConstBytes block = bytes.first(std::min(bytes.size(), most));
        bytes = bytes.subspan(block.size());
        const auto length = static_cast<unsigned>(block.size());
        last = bytes.empty();
        stream.push_back(last ? 1 : 0);
        for (const unsigned half : {length, length ^ 0xFFFFU}) {
            stream.push_back(static_cast<std::uint8_t>(half));
            stream.push_back(static_cast<std::uint8_t>(half >> 8U));
        }
        stream.insert(stream.end(), block.begin(), block.end());
    }
    put_u32(stream, (high << 16U) | low);
    return stream;
}

void mutate(Content& content, std::size_t most) {
    const std::size_t before = content.size();
    content.resize(std::max(before, most) + 1);  // never without memory
    content.resize(LLVMFuzzerMutate(content.data(), before, std::max(before, most)));
}

// A file that was taken apart: its chunks but those of IDAT, whose stream is unpacked.
struct Parts {
    Content head;  // chunks before IDAT, as they are in a file
    Content tail;
    Content rows;
};

bool take_apart(ConstBytes file, Parts& parts) {
    Content stream;
    for (std::size_t at = signature_size; at + chunk_frame <= file.size();) {
        const std::size_t length = chammi::load_u32(file.data() + at, ByteOrder::big);
        if (length > file.size() - at - chunk_frame) {
            return false;
        }
        const ConstBytes data = file.subspan(at + 8, length);
        if (std::equal(idat.begin(), idat.end(), file.begin() + static_cast<std::ptrdiff_t>(at + 4))) {
            stream.insert(stream.end(), data.begin(), data.end());
        } else {
            put_chunk(stream.empty() ? parts.head : parts.tail, file.subspan(at + 4).first<4>(), data);
        }
        at += chunk_frame + length;
    }
    static chammi::Workspace work;
    parts.rows.resize(std::size_t{1} << 18U);
    const auto unpacked = chammi::unpack_zlib(stream, parts.rows, work);
    parts.rows.resize(unpacked.outcome == chammi::Unpacked::complete ? unpacked.written : 0);
    return !parts.head.empty();
}

// Repairs the checksums of what still has the shape of chunks.
void repair(Content& file) {
    for (std::size_t at = signature_size; at + chunk_frame <= file.size();) {
        const std::size_t length = chammi::load_u32(file.data() + at, ByteOrder::big);
        if (length > file.size() - at - chunk_frame) {
            break;
        }
        Content sum;
        put_u32(sum, chammi::crc32(ConstBytes{file}.subspan(at + 4, length + 4)));
        std::ranges::copy(sum, file.begin() + static_cast<std::ptrdiff_t>(at + 8 + length));
        at += chunk_frame + length;
    }
}

// The header's width, height, depth, colour type and interlacing.
void mutate_header(Content& head, std::minstd_rand& random) {
    constexpr std::size_t fields = 8;
    if (head.size() >= fields + 13) {
        const std::array<std::size_t, 7> places{2, 3, 6, 7, 8, 9, 12};
        constexpr std::array<std::uint8_t, 8> values{1, 2, 3, 4, 8, 16, 0, 6};
        head[fields + places.at(random() % places.size())] = values.at(random() % values.size());
    }
}

Content rebuilt(ConstBytes file, std::size_t most, std::minstd_rand& random) {
    Parts parts;
    if (!take_apart(file, parts)) {
        return {file.begin(), file.end()};
    }
    if (random() % 3 == 0) {
        mutate_header(parts.head, random);
    } else {
        mutate(parts.rows, most);
    }
    Content made{file.begin(), file.begin() + signature_size};
    made.insert(made.end(), parts.head.begin(), parts.head.end());
    put_chunk(made, idat, store(parts.rows));
    made.insert(made.end(), parts.tail.begin(), parts.tail.end());
    repair(made);
    return made;
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed) {
    std::minstd_rand random{seed};
    Content file{data, data + size};
    const bool sound = chammi::png::has_signature(file);
    if (sound && random() % 2 == 0) {
        file = rebuilt(file, most, random);
    } else {
        mutate(file, most);
        if (random() % 4 != 0) {
            repair(file);
        }
    }
    file.resize(std::min(file.size(), most));
    std::ranges::copy(file, data);
    return file.size();
}

// The input is a PNG file. What the two libraries make of a stream has to be the same where both take it. Of broken
// ones, libdeflate takes a few more than ISA-L and zlib: where a block has one distance code only, either bit means it.
// The checksum of the stream is right then all the same.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using chammi::InflateLibrary;
    static chammi::Workspace work;
    static chammi::fuzz::Decoded first;
    static chammi::fuzz::Decoded second;
    const ConstBytes file{data, size};
    if (!chammi::png::has_signature(file)) {
        return -1;  // not worth keeping
    }
    if (chammi::use_inflate(InflateLibrary::libdeflate)) {
        chammi::fuzz::decode_over(file, 0x55, work, first);
    }
    if (chammi::use_inflate(InflateLibrary::isal) && chammi::has_inflate(InflateLibrary::libdeflate)) {
        chammi::fuzz::decode_over(file, 0xAA, work, second);
        if (first.status.ok() && second.status.ok()) {
            chammi::fuzz::require_same(first, second);
        }
    }
    chammi::fuzz::decode_in_every_way(file);
    return 0;
}
