#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "chammi/unpack.hpp"
#include "decoding.hpp"

namespace {

// Memory of exactly that size, so that AddressSanitizer sees a byte too many.
chammi::UnpackResult unpack(chammi::ConstBytes in, std::vector<std::uint8_t>& out) {
    const chammi::UnpackResult result = chammi::unpack_lzw(in, out);
    chammi::fuzz::require(result.outcome != chammi::Unpacked::complete || result.written <= out.size());
    return result;
}

}  // namespace

// The input is the number of bytes wanted, in two bytes, and an LZW stream.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) {
        return -1;  // not worth keeping
    }
    const std::size_t wanted = std::size_t{data[0]} * 256 + data[1];
    const chammi::ConstBytes stream{data + 2, size - 2};
    static_cast<void>(chammi::is_old_lzw(stream));
    std::vector<std::uint8_t> whole(wanted, 0x00);
    std::vector<std::uint8_t> part(wanted / 2, 0xFF);
    const chammi::UnpackResult all = unpack(stream, whole);
    const chammi::UnpackResult some = unpack(stream, part);
    if (all.outcome == chammi::Unpacked::complete) {
        // What comes first does not depend on how much is wanted, and every byte of it was written.
        chammi::fuzz::require(some.outcome == chammi::Unpacked::complete);
        chammi::fuzz::require(some.written == std::min(all.written, part.size()));
        chammi::fuzz::require(
            std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(some.written), whole.begin()));
    }
    return 0;
}
