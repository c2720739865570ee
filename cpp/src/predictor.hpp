#pragma once

#include "chammi/bytes.hpp"
#include "chammi/image.hpp"

namespace chammi::tiff {

/// Swaps the bytes of each of the samples.
void swap_samples(Bytes samples, std::uint32_t sample) noexcept;

/// Undoes predictor 2 in one row of native samples, `step` of them interleaved.
void undo_differences(Bytes row, std::uint32_t sample, std::uint32_t step) noexcept;

/// Undoes predictor 3 in one row: the differences of the bytes, which stand sorted by significance, highest first.
/// Makes native floats. `scratch` is as long as the row.
void undo_float_differences(Bytes row, std::uint32_t sample, std::uint32_t step, Bytes scratch) noexcept;

/// Bits lowest first become bits highest first.
void reverse_bits(ConstBytes from, Bytes out) noexcept;

}  // namespace chammi::tiff
