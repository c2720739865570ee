#include "chammi/buffer.hpp"

#include <limits>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace chammi {
namespace {

// Fresh memory costs more than what is written to it where its pages have 4 KiB. With huge ones, 64 images in a batch
// of 5 x 224 x 224 take 20 ms rather than 42, four such batches in a stream 75 rather than 143, and the first 16 images
// of a process 17 rather than 25 (AMD EPYC, Linux 6, virtual). Memory is not aligned to them: what is, glibc maps anew
// each time rather than using again what was freed.
void ask_for_huge_pages(std::uint8_t* data, std::size_t size) noexcept {
#ifdef __linux__
    constexpr std::size_t least = std::size_t{4} << 20U;
    constexpr std::size_t page = 4096;
    if (size >= least) {
        const std::size_t before = (page - reinterpret_cast<std::uintptr_t>(data) % page) % page;
        ::madvise(data + before, size - before, MADV_HUGEPAGE);
    }
#else
    static_cast<void>(data);
    static_cast<void>(size);
#endif
}

}  // namespace

bool Buffer::resize(std::uint64_t size) noexcept {
    constexpr std::uint64_t most = std::numeric_limits<std::ptrdiff_t>::max() - slack - alignment;
    if (size > most) {
        return false;
    }
    const auto wanted = static_cast<std::size_t>(size);
    if (data_ == nullptr || wanted > capacity_) {
        // aligned_alloc takes multiples of the alignment only.
        const std::size_t rounded = (wanted + slack + alignment - 1) / alignment * alignment;
        std::free(data_);
        data_ = static_cast<std::uint8_t*>(std::aligned_alloc(alignment, rounded));
        capacity_ = data_ == nullptr ? 0 : rounded - slack;
        if (data_ != nullptr) {
            ask_for_huge_pages(data_, rounded);
        }
    }
    size_ = data_ == nullptr ? 0 : wanted;
    return data_ != nullptr;
}

void Buffer::trim(std::size_t most) noexcept {
    if (capacity_ > most) {
        std::free(data_);
        data_ = nullptr;
        size_ = 0;
        capacity_ = 0;
    }
}

}  // namespace chammi
