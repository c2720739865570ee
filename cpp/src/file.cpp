#include "chammi/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "chammi/decode.hpp"
#include "chammi/png.hpp"
#include "chammi/tiff.hpp"

namespace chammi {
namespace {

constexpr std::size_t head_bytes = 8;  // enough to tell an image file
constexpr std::uint64_t small_file = std::uint64_t{1} << 20U;

// Eight bytes for each value that may be decoded, and room for metadata.
std::uint64_t most_bytes(const Limits& limits) noexcept {
    constexpr std::uint64_t most_values = std::numeric_limits<std::int64_t>::max() / 16;
    constexpr std::uint64_t metadata = std::uint64_t{64} << 20U;
    return std::min(limits.pixels, most_values) * 8 + metadata;
}

Status check_head(ConstBytes head, const Limits& limits) noexcept {
    if (png::has_signature(head) || tiff::has_signature(head)) {
        return success();
    }
    ImageInfo info;
    return probe(head, 0, limits, info);
}

class Descriptor {
 public:
    explicit Descriptor(int number) noexcept : number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    Descriptor(Descriptor&&) = delete;
    Descriptor& operator=(Descriptor&&) = delete;
    ~Descriptor() {
        if (number_ >= 0) {
            ::close(number_);
        }
    }
    [[nodiscard]] int get() const noexcept { return number_; }

 private:
    int number_;
};

Status translate(int error) noexcept {
    switch (error) {
        case ENOENT:
        case ENOTDIR:
            return failure(Code::missing, "there is no such file");
        case EACCES:
        case EPERM:
            return failure(Code::unreadable, "the file may not be read: permission denied");
        case EMFILE:
        case ENFILE:
            return failure(Code::unreadable, "the file cannot be opened: too many files are open");
        case ENAMETOOLONG:
            return failure(Code::missing, "there is no such file: the name is too long");
        default:
            return failure(Code::unreadable, "the file cannot be read: system error {}").with(error);
    }
}

// The file's first bytes, fewer where it is shorter.
Status read_start(int descriptor, Bytes into, std::size_t& done) noexcept {
    done = 0;
    while (done < into.size()) {
        const ssize_t count = ::pread(descriptor, into.data() + done, into.size() - done, static_cast<off_t>(done));
        if (count == 0) {
            break;  // the file shrank since its size was asked: what is there is decoded
        }
        if (count < 0 && errno != EINTR) {
            return translate(errno);
        }
        done += count > 0 ? static_cast<std::size_t>(count) : 0;
    }
    return success();
}

Status read_content(int descriptor, std::uint64_t size, Buffer& content) noexcept {
    std::size_t done = 0;
    if (!content.resize(size)) {
        return out_of_memory();
    }
    const Status status = read_start(descriptor, content.bytes(), done);
    return status.ok() && done < content.size() && !content.resize(done) ? out_of_memory() : status;
}

// Looks at the first bytes of a file and at its size before there is memory for it.
Status check_start(int descriptor, std::uint64_t size, const Limits& limits) noexcept {
    std::array<std::uint8_t, head_bytes> head{};
    std::size_t begun = 0;
    if (const Status status = read_start(descriptor, head, begun); !status.ok()) {
        return status;
    }
    if (const Status status = check_head({head.data(), begun}, limits); !status.ok()) {
        return status;
    }
    if (size > most_bytes(limits)) {
        return failure(Code::limit, "the file has {} bytes, more than the {} that the pixel limit allows")
            .with(static_cast<std::int64_t>(size), static_cast<std::int64_t>(most_bytes(limits)));
    }
    return success();
}

}  // namespace

// Read rather than mapped: in cached files of 40 KB, 180 KB and 640 KB, reading and touching every byte takes 0.46,
// 0.68 and 0.86 of the time of mapping them (AMD EPYC, Linux 6), as memory that is used again costs no page faults.
// Uncached, neither is ahead beyond the noise. A mapped file that someone shortens would also end the process.
Status read_file(const std::string& path, const Limits& limits, Buffer& content) noexcept {
    if (path.find('\0') != std::string::npos) {
        return translate(ENOENT);  // the system would take the name to end there
    }
    // Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-vararg) - the system's interface
    const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.get() < 0) {
        return translate(errno);
    }
    struct stat facts{};
    if (::fstat(file.get(), &facts) != 0) {
        return translate(errno);
    }
    if (S_ISDIR(facts.st_mode)) {
        return failure(Code::unreadable, "it is a directory, not an image file");
    }
    if (!S_ISREG(facts.st_mode)) {
        return failure(Code::unreadable, "it is not a regular file");
    }
    const auto size = static_cast<std::uint64_t>(facts.st_size);
    if (size > small_file) {
        if (const Status status = check_start(file.get(), size, limits); !status.ok()) {
            return status;
        }
    }
    return read_content(file.get(), size, content);
}

Status read_source(const ImageSource& source, const Limits& limits, Buffer& content, ConstBytes& bytes) noexcept {
    if (!source.path.has_value()) {
        bytes = source.bytes;
        return success();
    }
    const Status status = read_file(*source.path, limits, content);
    bytes = content.bytes();
    return status;
}

}  // namespace chammi
