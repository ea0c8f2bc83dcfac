#pragma once

#include <vector>

#include "core/autograd/tape.h"
#include "core/ops/sequences.h"

namespace bireme {

/// Rearranges pictures into patches, so that a patch convolution is one matrix product: row (picture, i, j)
/// holds the pixels of patch (i, j) in the order channel, row, column. Rows and columns that do not fill a
/// patch are left out, as a strided convolution does. Pictures of several sizes follow one another in one
/// buffer.
/// @param images  each [n, C, H, W], fp32 (fp64 in checks)
/// @return        [Σ n·⌊H/p⌋·⌊W/p⌋, C·p²] in `type`
Var extract_patches(Tape& tape, const std::vector<Var>& images, int patch, DType type);

/// Depthwise convolution over the past, with SiLU on top if asked for:
///     y[t, c] = act(b[c] + Σ_j W[c, 0, j] · x[t - K + 1 + j, c]),   zeros before the first token
/// @param x       [B·T, C]
/// @param weight  [C, 1, K]
/// @param bias    [C]
/// @param before  [B, K - 1, C], type of x: what came before x, in inference; no gradient. Undefined: zeros
/// @param starts  [B, T] u8, 1 where a document begins: taps before it read zero. Undefined: nowhere
Var causal_convolution(Tape& tape, const Var& x, Parameter& weight, Parameter& bias, const Tensor& before,
                       const Tensor& starts, std::int64_t sequences, bool silu);

/// The same over documents that branch: before a branch come the last rows of its trunk.
/// @param documents  that make up the rows of x, in their order
Var causal_convolution(Tape& tape, const Var& x, Parameter& weight, Parameter& bias,
                       const std::vector<Branching>& documents, bool silu);

}  // namespace bireme
