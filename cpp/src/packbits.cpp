#include <algorithm>
#include <cstring>

#include "chammi/unpack.hpp"

namespace chammi {

UnpackResult unpack_packbits(ConstBytes in, Bytes out) noexcept {
    std::size_t read = 0;
    std::size_t written = 0;
    while (written < out.size() && read < in.size()) {
        const unsigned header = in[read++];
        const std::size_t room = out.size() - written;
        if (header < 128) {
            const std::size_t length = std::min<std::size_t>(header + 1, room);
            if (length > in.size() - read) {
                return {Unpacked::corrupt, written};
            }
            std::memcpy(out.data() + written, in.data() + read, length);
            read += length;
            written += length;
        } else if (header > 128) {
            if (read == in.size()) {
                return {Unpacked::corrupt, written};
            }
            const std::size_t length = std::min<std::size_t>(257 - header, room);
            std::memset(out.data() + written, in[read++], length);
            written += length;
        }  // 128 stands for nothing
    }
    return {Unpacked::complete, written};
}

}  // namespace chammi
