#pragma once

#include "core/autograd/tape.h"

namespace bireme {

enum class RowReduction { sum, max };
/// Combines a vector of row statistics over the ranks that hold the other columns. Empty: all columns are
/// here.
using ReduceOverColumns = std::function<void(const Tensor&, RowReduction)>;

struct DinoLossOptions {
  int crops = 0;  ///< V; rows are crop-major: crop · B + image; crops 0 and 1 are the globals
  float student_temperature = 0.1f;
  float teacher_temperature = 0.04f;
  std::int64_t global_images =
      0;  ///< images of the batch over all ranks and micro-batches; the loss divides by P · this
};

/// Sums over this rank's images, to be added over ranks and divided by the counts that the names say.
struct DinoStatistics {
  Tensor entropy_sum;           ///< scalar, fp64: Σ over 2·B rows of H(q)
  Tensor mean_probability_sum;  ///< [K]: Σ over 2·B rows of q
  Tensor teacher_logit_sum;     ///< [K]: Σ over 2·B rows of raw teacher logits, for the centre
};

struct DinoLoss {
  Var loss;  ///< scalar: this rank's share of the global loss (shares add up)
  DinoStatistics statistics;
};

/// The self-distillation loss over multi-crop pairs (Caron et al. 2021, eq. 3; algorithm 1):
///     q_i = softmax((t_i - c)/τ_t),  loss = -1/(P·B) · Σ_i Σ_{v ≠ i} Σ_b q_i · log softmax(s_v/τ_s),  P = 2V
///     - 2
/// fp32 throughout. The student's logits are overwritten by their gradient on the way back, the teacher's by
/// q: neither log-probabilities nor per-pair products exist in memory.
/// @param student  [V·B, K] logits, fp32 or bf16 (fp64 in checks), consumed
/// @param teacher  [2·B, K] raw logits, same type, consumed
/// @param center   [K] fp32 (fp64)
/// @param reduce   over the ranks that hold the other columns, when K is split
DinoLoss dino_loss(Tape& tape, const Var& student, const Tensor& teacher, const Tensor& center,
                   const DinoLossOptions& options, const ReduceOverColumns& reduce = {});

/// Mean cross-entropy of softmax(logits) against labels, divided by `count`; logits are overwritten by their
/// gradient on the way back.
/// @param logits  [R, V] fp32 (fp64)
/// @param labels  [R] int32 in 0 … V-1
Var cross_entropy(Tape& tape, const Var& logits, const Tensor& labels, double count);

}  // namespace bireme
