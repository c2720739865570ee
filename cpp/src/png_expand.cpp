#include "png_expand.hpp"

#include <cstring>

namespace chammi::png {
namespace {

unsigned sample_at(const std::uint8_t* row, std::uint32_t index, std::uint32_t depth) noexcept {
    const std::uint64_t bit = std::uint64_t{index} * depth;
    const unsigned byte = row[bit / 8];
    return byte >> (8 - depth - bit % 8) & ((1U << depth) - 1);
}

bool expand_indices(const Expansion& how, const std::uint8_t* from, std::uint32_t width, std::uint8_t* out) noexcept {
    for (std::uint32_t x = 0; x < width; ++x) {
        const unsigned index = sample_at(from, x, how.depth);
        if (index >= how.colours) {
            return false;
        }
        std::memcpy(out, how.palette.data() + std::size_t{index} * 4, how.given);
        out += how.given;
    }
    return true;
}

void expand_gray(const Expansion& how, const std::uint8_t* from, std::uint32_t width, std::uint8_t* out) noexcept {
    const unsigned white = (1U << how.depth) - 1;  // divides 255
    for (std::uint32_t x = 0; x < width; ++x) {
        out[x] = static_cast<std::uint8_t>(sample_at(from, x, how.depth) * (255 / white));
    }
}

void add_alpha(const Expansion& how, const std::uint8_t* from, std::uint32_t width, std::uint8_t* out) noexcept {
    const std::size_t sample = how.depth / 8;
    const std::size_t colour = 3 * sample;
    for (std::uint32_t x = 0; x < width; ++x) {
        const bool transparent = std::memcmp(from, how.key.data(), colour) == 0;
        std::memcpy(out, from, colour);
        std::memset(out + colour, transparent ? 0 : 255, sample);
        from += colour;
        out += colour + sample;
    }
}

constexpr std::array adam7{Pass{0, 0, 8, 8}, Pass{0, 4, 8, 8}, Pass{4, 0, 8, 4}, Pass{0, 2, 4, 4},
                           Pass{2, 0, 4, 2}, Pass{0, 1, 2, 2}, Pass{1, 0, 2, 1}};
constexpr std::array whole{Pass{}};

}  // namespace

bool expand_row(const Expansion& how, const std::uint8_t* from, std::uint32_t width, std::uint8_t* out) noexcept {
    if (how.indexed()) {
        return expand_indices(how, from, width, out);
    }
    if (how.keyed) {
        add_alpha(how, from, width, out);
    } else if (how.depth < 8) {
        expand_gray(how, from, width, out);
    } else {
        std::memcpy(out, from, width * how.given_pixel());
    }
    return true;
}

std::span<const Pass> passes_of(const ImageInfo& info) noexcept {
    return info.interlaced ? std::span<const Pass>{adam7} : std::span<const Pass>{whole};
}

void scatter(const std::uint8_t* pixels, std::uint32_t count, std::size_t size, std::uint32_t step,
             std::uint8_t* out) noexcept {
    for (std::uint32_t i = 0; i < count; ++i) {
        std::memcpy(out, pixels, size);
        pixels += size;
        out += step * size;
    }
}

}  // namespace chammi::png
