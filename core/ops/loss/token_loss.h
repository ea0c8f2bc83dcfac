#pragma once

#include "core/autograd/tape.h"
#include "core/ops/loss/loss.h"

namespace bireme {

/// The head of a language model as this rank holds it.
struct TokenHead {
  Parameter& weight;           ///< [V', C]: rows first … first + V' - 1 of the vocabulary
  std::int64_t first = 0;      ///< token of the first row
  double soft_cap = 0;         ///< logits become cap · tanh(logit / cap); 0: as they are
  ReduceOverColumns reduce{};  ///< over the ranks that hold the other rows; fp64 vectors
};

struct TokenLossTerms {
  double count = 1;    ///< the losses are divided by this
  double z_loss = 0;   ///< adds z_loss · log²(Σ exp(logits)) to each loss
  double l2_wrap = 0;  ///< adds l2_wrap · max(logits) to the gradient of the largest logit, the first on ties
};

struct TokenLossResult {
  Var loss;                ///< scalar: Σ over rows with a target of (cross-entropy + z-loss) / count
  Tensor top;              ///< scalar, fp64: rows whose target no other token is more probable than
  Tensor log_probability;  ///< [R] fp32: of each target, 0 where there is none
  Tensor is_top;           ///< [R] u8: 1 where no logit is larger than the target's
};

/// Logits = cap(hidden · Wᵀ) and their cross-entropy, for one slice of rows after another, so that [R, V]
/// never exists: while a slice's logits are in memory, their gradient replaces them, and goes into those of
/// hidden and W at once. What comes in from above on the way back, usually 1, multiplies both later. Logits
/// and statistics are in fp32 (fp64) whatever the compute type.
///     dlogits = ((softmax + 2·z_loss·log Z · softmax - one_hot(target)) + l2_wrap · max · one_hot(arg max))
///     / count
/// (L2Wrap of RWKV's training code: the gradient of ½·l2_wrap·max², not part of the value; z-loss: Chowdhery
/// et al. 2022, section 5.)
/// @param hidden   [R, C], compute type
/// @param targets  R elements, i32; -1: no target
TokenLossResult token_loss(Tape& tape, const Var& hidden, const Tensor& targets, const TokenHead& head,
                           const TokenLossTerms& terms);

/// The logits that this rank's rows make: [R, V'] fp32 (fp64). No gradient.
Tensor token_logits(const Backend& backend, const Tensor& hidden, const TokenHead& head);

}  // namespace bireme
