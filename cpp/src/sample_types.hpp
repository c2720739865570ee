#pragma once

#include <cstdint>

#include "chammi/image.hpp"

namespace chammi {

/// Calls `act` with a value of the unsigned type that is as large as a sample: for what only moves samples.
template <typename Act>
void with_size_of(SampleType type, Act act) noexcept {
    switch (sample_bytes(type)) {
        case 1:
            act(std::uint8_t{});
            break;
        case 2:
            act(std::uint16_t{});
            break;
        case 4:
            act(std::uint32_t{});
            break;
        default:
            act(std::uint64_t{});
            break;
    }
}

}  // namespace chammi
