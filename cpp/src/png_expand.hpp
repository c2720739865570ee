#pragma once

#include <array>
#include <cstdint>

#include "chammi/bytes.hpp"
#include "chammi/image.hpp"

namespace chammi::png {

/// How stored pixels become those that are given out.
struct Expansion {
    std::uint32_t depth = 8;   // bits of a stored sample
    std::uint32_t stored = 1;  // samples of a stored pixel
    std::uint32_t given = 1;   // samples of a pixel given out
    bool keyed = false;        // RGB of which one colour is transparent
    std::uint32_t colours = 0;
    std::array<std::uint8_t, 1024> palette{};  // RGBA
    std::array<std::uint8_t, 6> key{};         // the transparent colour as its pixels are stored

    [[nodiscard]] bool indexed() const noexcept { return colours != 0; }
    [[nodiscard]] bool needed() const noexcept { return indexed() || keyed || depth < 8; }
    [[nodiscard]] std::uint64_t stored_row(std::uint64_t width) const noexcept {
        return (width * stored * depth + 7) / 8;
    }
    [[nodiscard]] std::size_t given_pixel() const noexcept { return std::size_t{given} * (depth == 16 ? 2 : 1); }
};

/// Expands one row of unfiltered pixels, whose 16-bit samples stay big-endian. False where an index has no colour.
[[nodiscard]] bool expand_row(const Expansion& how, const std::uint8_t* from, std::uint32_t width,
                              std::uint8_t* out) noexcept;

/// The pixels that one pass holds: from (top, left) on in steps.
struct Pass {
    std::uint32_t top = 0;
    std::uint32_t left = 0;
    std::uint32_t down = 1;
    std::uint32_t right = 1;

    [[nodiscard]] std::uint32_t rows(const ImageInfo& info) const noexcept {
        return info.height <= top ? 0 : (info.height - top + down - 1) / down;
    }
    [[nodiscard]] std::uint32_t columns(const ImageInfo& info) const noexcept {
        return info.width <= left ? 0 : (info.width - left + right - 1) / right;
    }
};

/// The passes of an image: Adam7's seven, or one.
std::span<const Pass> passes_of(const ImageInfo& info) noexcept;

/// Puts pixels of `size` bytes `step` pixels apart.
void scatter(const std::uint8_t* pixels, std::uint32_t count, std::size_t size, std::uint32_t step,
             std::uint8_t* out) noexcept;

}  // namespace chammi::png
