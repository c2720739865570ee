#pragma once

#include <array>
#include <cstdint>
#include <limits>

namespace chammi {

/// What became of one image. The bindings give each code its name in Python.
enum class Code : std::uint8_t {
    ok,
    missing,      // no such file
    unreadable,   // the file exists but cannot be read
    truncated,    // the file ends before the image does
    corrupt,      // the file contradicts its format
    unsupported,  // perhaps a sound file, but of a kind that is not read here
    limit,        // larger than the pixel limit or than the memory at hand
    shape,        // the image does not fit what was asked of it
    outside,      // a cell's centre is not within its field of view
    edge,         // a cell's crop is not within its field of view, and such cells are left out
};

/// The outcome of one call, cheap enough to return by value from every function of the core.
struct [[nodiscard]] Status {
    static constexpr std::uint64_t nowhere = std::numeric_limits<std::uint64_t>::max();

    Code code = Code::ok;
    /// Static text; each "{}" in it stands for the next of `details`.
    const char* cause = "";
    /// Where in the file the fault was met, or `nowhere`.
    std::uint64_t byte_offset = nowhere;
    std::array<std::int64_t, 3> details{};

    [[nodiscard]] constexpr bool ok() const noexcept { return code == Code::ok; }

    /// The same status with numbers for the placeholders of its cause.
    [[nodiscard]] constexpr Status with(std::int64_t first, std::int64_t second = 0,
                                        std::int64_t third = 0) const noexcept {
        Status copy = *this;
        copy.details = {first, second, third};
        return copy;
    }
};

constexpr Status success() noexcept {
    return {};
}

constexpr Status failure(Code code, const char* cause, std::uint64_t byte_offset = Status::nowhere) noexcept {
    return Status{code, cause, byte_offset, {}};
}

constexpr Status out_of_memory() noexcept {
    return failure(Code::limit, "there is not enough memory for the image");
}

}  // namespace chammi
