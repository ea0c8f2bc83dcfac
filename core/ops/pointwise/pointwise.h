#pragma once

#include "core/autograd/tape.h"

namespace bireme {

/// x + scale ∘ branch over rows [R, C]; scale [R] or undefined for 1. Result in the type of x.
Var residual_add(Tape& tape, const Var& x, const Var& branch, const Tensor& scale = {});

/// y = x + b for every row; x [R, C], b [C].
Var add_bias(Tape& tape, const Var& x, Parameter& bias);

/// y = σ(r) ∘ x.
Var sigmoid_gate(Tape& tape, const Var& r, const Var& x);

/// SwiGLU's product (Shazeer 2020): y = silu(a) ∘ b, silu(a) = a / (1 + exp(-a)). The way back rebuilds it
/// from its inputs.
/// @param x  [R, 2·F]: per row a, then b
/// @return   [R, F]
Var silu_gate(Tape& tape, const Var& x);

/// x·Φ(x), exact.
Var gelu(Tape& tape, const Var& x);

}  // namespace bireme
