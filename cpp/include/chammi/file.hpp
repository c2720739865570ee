#pragma once

#include <optional>
#include <string>

#include "chammi/buffer.hpp"
#include "chammi/bytes.hpp"
#include "chammi/image.hpp"
#include "chammi/status.hpp"

namespace chammi {

/// Reads a whole regular file into `content`. Refuses, before there is memory for it, what does not begin as an image
/// does, and what is larger than any image within `limits` need be. Directories, pipes and devices are refused: they
/// have no size.
Status read_file(const std::string& path, const Limits& limits, Buffer& content) noexcept;

/// An encoded image: the path of its file, or its bytes, which belong to someone else.
struct ImageSource {
    std::optional<std::string> path;
    ConstBytes bytes;
};

/// The encoded bytes, read into `content` where they are in a file.
Status read_source(const ImageSource& source, const Limits& limits, Buffer& content, ConstBytes& bytes) noexcept;

}  // namespace chammi
