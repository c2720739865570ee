#pragma once

#include <string>

#include "chammi/buffer.hpp"
#include "chammi/status.hpp"

namespace chammi {

/// Reads a whole regular file into `content`. Directories, pipes and devices are refused: they have no size.
Status read_file(const std::string& path, Buffer& content) noexcept;

}  // namespace chammi
