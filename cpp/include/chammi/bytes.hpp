#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

namespace chammi {

using ConstBytes = std::span<const std::uint8_t>;
using Bytes = std::span<std::uint8_t>;

enum class ByteOrder : std::uint8_t { little, big };

constexpr ByteOrder native_order = std::endian::native == std::endian::little ? ByteOrder::little : ByteOrder::big;

inline std::uint16_t load_u16(const std::uint8_t* from, ByteOrder order) noexcept {
    std::uint16_t value = 0;
    std::memcpy(&value, from, sizeof value);
    return order == native_order ? value : __builtin_bswap16(value);
}

inline std::uint32_t load_u32(const std::uint8_t* from, ByteOrder order) noexcept {
    std::uint32_t value = 0;
    std::memcpy(&value, from, sizeof value);
    return order == native_order ? value : __builtin_bswap32(value);
}

inline std::uint64_t load_u64(const std::uint8_t* from, ByteOrder order) noexcept {
    std::uint64_t value = 0;
    std::memcpy(&value, from, sizeof value);
    return order == native_order ? value : __builtin_bswap64(value);
}

/// product = a * b; false where that overflows.
[[nodiscard]] inline bool multiply(std::uint64_t a, std::uint64_t b, std::uint64_t& product) noexcept {
    return !__builtin_mul_overflow(a, b, &product);
}

/// True where the `length` bytes at `offset` lie inside a file of `size` bytes.
[[nodiscard]] constexpr bool lies_within(std::uint64_t offset, std::uint64_t length, std::uint64_t size) noexcept {
    return offset <= size && length <= size - offset;
}

}  // namespace chammi
