#pragma once

#include <vector>

#include "core/autograd/tape.h"
#include "core/ops/sequences.h"

namespace bireme {

/// Heads as this rank holds them. Query head h reads key and value head h / (queries / keys) (Ainslie et al.
/// 2023).
struct AttentionHeads {
  int queries = 1;             ///< H
  int keys = 1;                ///< G, divides H
  std::int64_t dimension = 1;  ///< d, of each head

  int group() const { return queries / keys; }
  std::int64_t channels() const { return (queries + 2 * keys) * dimension; }  ///< of packed q, k, v
};

/// Multi-head softmax attention in which a token sees itself and those before it in its document:
///     y_t = Σ_s a_ts · v_s,   a_t = softmax over s ≤ t of (q_t · k_s / √d)
/// Scores exist for one tile at a time, with a running maximum and sum (Dao et al. 2022); the way back
/// rebuilds them from the kept row log-sum-exp. Tiles in which nothing is seen are passed over.
/// @param qkv     [B·T, (H + 2·G)·d]: per row all q, all k, all v, each head-major
/// @param length  T
/// @param first   [B·T] i32: the position in its sequence at which each row's document starts; undefined: 0
/// @return        [B·T, H·d], type of qkv
Var causal_attention(Tape& tape, const Var& qkv, const AttentionHeads& heads, std::int64_t length,
                     const Tensor& first);

/// The same over documents that branch: a row sees its branch up to itself and the whole trunk before it.
/// Nothing is computed for what it does not see.
/// @param documents  that make up the R rows, in their order
Var causal_attention(Tape& tape, const Var& qkv, const AttentionHeads& heads,
                     const std::vector<Branching>& documents);

}  // namespace bireme
