#pragma once

#include <cstdint>

#include "chammi/field.hpp"
#include "chammi/preprocess.hpp"
#include "chammi/status.hpp"

namespace chammi {

/// What a crop holds where it reaches beyond its field.
enum class Edge : std::uint8_t {
    reflect,   // the field mirrored at the centre of its outermost pixels, again and again
    constant,  // 0
    skip,      // there are no such crops
};

struct CropSettings {
    std::uint32_t size = 160;
    Edge edge = Edge::reflect;
    Scaling scaling;
    bool hide_neighbours = false;
};

/// A crop of the channels of one field.
struct CropJob {
    const Field& field;
    const CropSettings& settings;
    const Preprocess& how;  // not used where samples stay as they are
    Frame frame;            // of the crop at the end
};

/// Fills `out` (frame.channels, frame.height, frame.width) with one cell: float32, or, where samples stay as they are,
/// as the field has them. The field is without fault, and has labels if neighbours are hidden.
Status crop_cell(const CropJob& job, std::uint64_t cell, FieldWorkspace& work, bool& touches_edge,
                 std::uint8_t* out) noexcept;

}  // namespace chammi
