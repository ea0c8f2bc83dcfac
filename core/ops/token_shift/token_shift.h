#pragma once

#include <vector>

#include "core/autograd/tape.h"
#include "core/ops/sequences.h"

namespace bireme {

/// Token shift (Peng et al. 2023, eq. 11-13): several learned mixtures of each token with the one before it,
/// in one pass,
///     m_i[t] = μ_i ∘ x[t] + (1 - μ_i) ∘ x[t - 1]
/// with zeros for the token before the first of a sequence or document. μ is not clamped, and fp32 whatever
/// the compute type: 1 - μ would lose what it is for in bf16.
/// @param x        [B·T, C], compute type
/// @param mu       at most kMostMixtures of [C], fp32 (fp64)
/// @param carried  [B, C], type of x: read as the tokens before the first, then overwritten with the last
///                 ones. No gradient. Undefined: zeros
/// Where the sequences are documents that branch, the token before the first of a branch is the trunk's last.
/// @return         one [B·T, C] for each μ
inline constexpr int kMostMixtures = 3;
std::vector<Var> token_shift(Tape& tape, const Var& x, const std::vector<Var>& mu, const Sequences& sequences,
                             const Tensor& carried = {});

}  // namespace bireme
