#pragma once

#include "core/ops/loss/token_loss.h"

namespace bireme {

/// log p(target) of each row of hidden · Wᵀ (capped as the head says), in fp64: for objectives that add up
/// hundreds of them, compare the sums, and only then know what each counts for. The incoming gradient is that
/// weight, of each row, and fp64 as well:
///     dlogits[i, v] = weight[i] · (1[v = target_i] - softmax[i, v])
/// Logits are kept for the way back where all of them are few (kKeptLogitBytes), and else computed again,
/// slice by slice. A row of weight 0 costs nothing but its share of the products.
/// @param hidden   [N, C], compute type
/// @param targets  N elements, i32, all in the vocabulary
/// @return         [N] fp64, at most 0
Var token_scores(Tape& tape, const Var& hidden, const Tensor& targets, const TokenHead& head);

inline constexpr std::int64_t kKeptLogitBytes = std::int64_t{256} << 20;

}  // namespace bireme
