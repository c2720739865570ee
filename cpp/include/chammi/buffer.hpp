#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "chammi/bytes.hpp"

namespace chammi {

/// Memory that is reused from image to image: it grows without keeping what it held, and growing may fail but
/// never throws. `slack` readable and writable bytes follow the requested ones, for kernels that work in
/// blocks.
class Buffer {
 public:
    static constexpr std::size_t slack = 64;
    static constexpr std::size_t alignment = 64;

    Buffer() noexcept = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)),
          capacity_(std::exchange(other.capacity_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    /// Holds `size` bytes of unspecified content afterwards; false where memory is short.
    [[nodiscard]] bool resize(std::uint64_t size) noexcept;

    /// Gives memory back where more than `most` bytes are held.
    void trim(std::size_t most) noexcept;

    [[nodiscard]] std::uint8_t* data() noexcept { return data_; }
    [[nodiscard]] const std::uint8_t* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
    [[nodiscard]] Bytes bytes() noexcept { return {data_, size_}; }
    [[nodiscard]] ConstBytes bytes() const noexcept { return {data_, size_}; }

    /// The content as elements of `T`; size() need not be a multiple of its size.
    template <typename T>
    [[nodiscard]] T* as() noexcept {
        return reinterpret_cast<T*>(data_);
    }
    template <typename T>
    [[nodiscard]] const T* as() const noexcept {
        return reinterpret_cast<const T*>(data_);
    }

 private:
    std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace chammi
