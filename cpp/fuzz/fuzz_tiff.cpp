#include <cstddef>
#include <cstdint>

#include "decoding.hpp"

// The input is a file that begins as TIFF does: anything else is refused at once.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 8 || (data[0] != 'I' && data[0] != 'M')) {
        return -1;  // not worth keeping
    }
    chammi::fuzz::decode_in_every_way({data, size});
    return 0;
}
