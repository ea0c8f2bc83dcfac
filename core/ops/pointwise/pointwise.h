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

/// y = (h + skip ∘ u) ∘ silu(z), silu(z) = z·σ(z): what an mLSTM block does with its cell's output.
/// @param h, u, z  [R, C]
/// @param skip     [C]
Var skip_gate(Tape& tape, const Var& h, const Var& u, Parameter& skip, const Var& z);

/// The activation of a gated feed-forward layer.
enum class Activation { gelu, silu, relu, squared_relu, sigmoid, selu };

/// y = act(a) ∘ b.
/// @param x  [R, 2·F]: per row a, then b
/// @return   [R, F]
Var activation_gate(Tape& tape, const Var& x, Activation activation);

/// x·Φ(x), exact.
Var gelu(Tape& tape, const Var& x);

}  // namespace bireme
