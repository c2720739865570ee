/* What a decoder cannot do without, alone: inflating by each library, and copying a file into memory. */
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <unistd.h>

int inflate_by_isal(const unsigned char* in, size_t size, unsigned char* out, size_t wanted) {
    static struct inflate_state state;
    isal_inflate_init(&state);
    state.crc_flag = ISAL_ZLIB;
    state.next_in = (unsigned char*)in;
    state.avail_in = (unsigned)size;
    state.next_out = out;
    state.avail_out = (unsigned)wanted;
    return isal_inflate_stateless(&state) == ISAL_DECOMP_OK && state.avail_out == 0;
}

int inflate_by_libdeflate(const unsigned char* in, size_t size, unsigned char* out, size_t wanted) {
    static struct libdeflate_decompressor* state;
    if (state == NULL) state = libdeflate_alloc_decompressor();
    return libdeflate_zlib_decompress(state, in, size, out, wanted, NULL) == LIBDEFLATE_SUCCESS;
}

int copy_file(const char* path, unsigned char* out, size_t size) {
    const int file = open(path, O_RDONLY);
    const int whole = file >= 0 && read(file, out, size) == (ssize_t)size;
    close(file);
    return whole;
}
