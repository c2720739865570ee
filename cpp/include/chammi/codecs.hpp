#pragma once

#include <string>
#include <vector>

namespace chammi {

struct CodecLibrary {
    std::string name;
    std::string version;
};

/// The libraries of compression that are built in.
std::vector<CodecLibrary> codecs();

}  // namespace chammi
