#pragma once

#include <vector>

#include "core/autograd/tape.h"

namespace bireme {

/// Rearranges pictures into patches, so that a patch convolution is one matrix product: row (picture, i, j)
/// holds the pixels of patch (i, j) in the order channel, row, column. Rows and columns that do not fill a
/// patch are left out, as a strided convolution does. Pictures of several sizes follow one another in one
/// buffer.
/// @param images  each [n, C, H, W], fp32 (fp64 in checks)
/// @return        [Σ n·⌊H/p⌋·⌊W/p⌋, C·p²] in `type`
Var extract_patches(Tape& tape, const std::vector<Var>& images, int patch, DType type);

}  // namespace bireme
