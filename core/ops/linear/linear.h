#pragma once

#include <vector>

#include "core/autograd/tape.h"

namespace bireme {

/// y = x · Wᵀ + b over the last dimension.
/// @param x       [..., C], fp32, bf16 or fp64; a bf16 input uses the parameters' bf16 copy and sums in fp32
/// @param weight  [O, C]
/// @param bias    [O], or null
/// @return        [..., O], type of x
/// @throws Error  when the inner sizes differ
Var linear(Tape& tape, const Var& x, Parameter& weight, Parameter* bias);

/// The same with a weight that was computed on the tape (weight normalisation); no bias.
Var linear(Tape& tape, const Var& x, const Var& weight);

/// y = GELU(x · Wᵀ + b), exact form z·Φ(z) (Hendrycks and Gimpel 2016), fused: z is kept for the way back,
/// and is never a separate pass over memory.
Var linear_gelu(Tape& tape, const Var& x, Parameter& weight, Parameter& bias);

/// y = relu(x · Wᵀ)², no bias: the activation of RWKV's channel mixing (So et al. 2021), fused. Only y is
/// kept for the way back, where relu(x · Wᵀ) is its root.
Var linear_squared_relu(Tape& tape, const Var& x, Parameter& weight);
/// Several linear layers of one input whose weights are blocks of rows of one parameter: y_i = x · W_iᵀ (+
/// b_i).
/// @param rows  of each block; together those of the weight
std::vector<Var> linear_blocks(Tape& tape, const Var& x, Parameter& weight, Parameter* bias,
                               const std::vector<std::int64_t>& rows);

/// One of the block-diagonal layers of block_linear: its input [R, N·I] and weight [N, O, I].
struct BlockPart {
  Var x;
  Parameter* weight = nullptr;
};
/// Block-diagonal linear layers side by side: y[r, n, p, o] = Σ_i W_p[n, o, i] · x_p[r, n, i]; blocks n are
/// consecutive channels. One part is a layer whose every block sees its own channels only.
/// @return  [R, N·P·O] in `type`: the compute type, or fp32 for what must not be rounded
Var block_linear(Tape& tape, const std::vector<BlockPart>& parts, DType type);

/// A matrix for each head, read by queries: y[r, n, o] = Σ_i M[n, i, o] · x[r, n, i] / √I.
/// @param memory  [N, I, O]
Var memory_product(Tape& tape, const Var& x, Parameter& memory);

/// Few outputs in fp32 (fp64) from inputs side by side: y[r] = [Σ_x x[r]·A_xᵀ, Σ_x x[r]·B_xᵀ], with A_x and
/// B_x the columns of the weights that belong to x. Weights are read in full precision whatever the type of
/// x.
/// @param a, b  [H, Σ C_x]
/// @return      [R, 2·H]
Var gate_products(Tape& tape, const std::vector<Var>& xs, Parameter& a, Parameter& b);

/// y[r, j] = cap(g[r, first + j] + a[j]) for j < H, and the same for the second half of g with b; cap(x) =
/// c·tanh(x / c).
/// @param g     [R, 2·N] fp32 (fp64)
/// @param a, b  [H], H ≤ N
/// @param cap   c, or 0 for none
Var cap_gates(Tape& tape, const Var& g, Parameter& a, Parameter& b, std::int64_t first, double cap);

}  // namespace bireme
