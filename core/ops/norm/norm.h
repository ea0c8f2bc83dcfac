#pragma once

#include "core/autograd/tape.h"

namespace bireme {

/// Layer normalisation over the last dimension (Ba et al. 2016): y = (x - mean) · r · gain + bias, r =
/// 1/√(variance + epsilon), biased variance in two passes, statistics in fp32 (fp64 for fp64).
/// @param x     [..., C], fp32, bf16 or fp64
/// @param type  of y: the compute type; x may be the fp32 residual stream while y is bf16
Var layer_norm(Tape& tape, const Var& x, Parameter& gain, Parameter& bias, float epsilon, DType type);

struct ResidualNorm {
  Var x;  ///< x + scale ∘ branch, type of x
  Var y;  ///< its layer norm, compute type
};
/// A block's residual addition and the next layer norm in one pass over memory, forward and backward.
/// @param x       [R, C] residual stream, fp32 (or fp64)
/// @param branch  [R, C], compute type
/// @param scale   [R] fp32 (fp64), the stochastic-depth factor of each row's picture; an undefined tensor
/// stands for 1
ResidualNorm residual_layer_norm(Tape& tape, const Var& x, const Var& branch, const Tensor& scale,
                                 Parameter& gain, Parameter& bias, float epsilon, DType type);

/// Root-mean-square normalisation over the last dimension (Zhang and Sennrich 2019): y = gain · x · r, r =
/// (mean x² + epsilon)^(-1/2), statistics in fp32 (fp64). Where y is bf16, x · r is rounded before gain
/// multiplies it, as in published bf16 models.
/// @param x     [..., C], fp32, bf16 or fp64
/// @param type  of y
Var rms_norm(Tape& tape, const Var& x, Parameter& gain, float epsilon, DType type);

/// A block's residual addition and the next rms_norm in one pass over memory, forward and backward.
/// @param x       [R, C] residual stream, fp32 (or fp64)
/// @param branch  [R, C], compute type
ResidualNorm residual_rms_norm(Tape& tape, const Var& x, const Var& branch, Parameter& gain, float epsilon,
                               DType type);

/// Layer normalisation of each group of channels by itself, without bias: y = (x - mean) · r · (gain +
/// offset), mean and r of the group. With one group a layer norm over the row, with as many groups as heads a
/// norm of each head.
/// @param x       [..., C], fp32, bf16 or fp64; C a multiple of `groups`
/// @param offset  1 where gains are stored as their distance from 1, else 0
/// @param type    of y
Var group_norm(Tape& tape, const Var& x, std::int64_t groups, Parameter& gain, float offset, float epsilon,
               DType type);

/// u = x / max(‖x‖₂, 1e-12) for each row of [R, C].
Var l2_normalize(Tape& tape, const Var& x);

/// W_k = g_k · v_k / ‖v_k‖ (Salimans and Kingma 2016, eq. 2), computed in fp32.
/// @param direction  v [K, C]
/// @param magnitude  g [K, 1]
/// @return           W [K, C] in `type`
Var weight_norm(Tape& tape, Parameter& direction, Parameter& magnitude, DType type);

/// Sums a tensor in place over the ranks that share a batch. Empty: one process.
using SumOverRanks = std::function<void(const Tensor&)>;

/// Batch normalisation over the rows of [R, C] with the statistics of this call's batch, summed over ranks
/// (Ioffe and Szegedy 2015): biased variance to normalise; running statistics move by `momentum` towards mean
/// and unbiased variance.
struct BatchNormState {
  Tensor running_mean, running_variance;  // [C] fp32
};
Var batch_norm(Tape& tape, const Var& x, Parameter& gain, Parameter& bias, BatchNormState& state,
               const SumOverRanks& sum, float epsilon = 1e-5f, float momentum = 0.1f);

}  // namespace bireme
