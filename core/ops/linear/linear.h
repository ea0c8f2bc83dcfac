#pragma once

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

}  // namespace bireme
