#pragma once

#include <cstdint>

#include "core/autograd/tape.h"

namespace bireme {

/// Row maxima over the columns held here; the caller reduces them over the ranks that hold the others.
struct DinoMaxima {
  const Tensor &student, &teacher, &center;       // [V·B, K], [2·B, K], [K]
  const Tensor &student_maxima, &teacher_maxima;  // [V·B]: max s, [2·B]: max (t - c); fp32 (fp64)
};

/// Row sums over the columns held here, to be reduced likewise. With e = (s - max s) / τ_s and a = (t - c -
/// max) / τ_t:
struct DinoSums {
  const Tensor& student;  // [V·B, K]
  const Tensor& teacher;  // [2·B, K]; t on entry, exp(a) on return
  const Tensor& center;
  const Tensor &student_maxima, &teacher_maxima;  // over all columns
  const Tensor& exponentials;                     // [V·B]: Σ exp(e)
  const Tensor& dots;                             // [2, V·B]: Σ exp(a_i) · e for both globals i
  const Tensor& teacher_exponentials;             // [2·B]: Σ exp(a)
  const Tensor& teacher_exponents;                // [2·B]: Σ exp(a) · a
  const Tensor& teacher_logit_sum;                // [K]: Σ over rows of t
  float student_temperature, teacher_temperature;
};

/// loss = Σ over rows of (n_v · log Σ exp(e) - Σ_{i ≠ v} dot_i / Σ exp(a_i)) / pairs, n_v = 1 for globals and
/// 2 for locals; max s cancels, as q sums to 1. H(q) = log Σ exp(a) - Σ exp(a)·a / Σ exp(a).
struct DinoFinish {
  const Tensor& teacher;  // [2·B, K]; exp(a) on entry, q on return
  const Tensor &exponentials, &dots, &teacher_exponentials, &teacher_exponents;  // over all columns
  const Tensor& loss;                                                            // scalar
  const Tensor& entropy_sum;           // scalar, fp64: Σ over rows of H(q)
  const Tensor& mean_probability_sum;  // [K]: Σ over rows of q
  double pairs;                        // P · B
};

/// ds_v = (n_v · softmax(s_v / τ_s) - Σ_{i ≠ v} q_i) · dloss / (pairs · τ_s), in place.
struct DinoBackward {
  const Tensor& dloss;    // scalar
  const Tensor& student;  // [V·B, K]; s on entry, ds on return
  const Tensor& teacher;  // [2·B, K]: q
  const Tensor &student_maxima, &exponentials;
  float student_temperature;
  double pairs;
};

/// loss = Σ over rows of (log Σ exp(x) - x[label]) / count
struct CrossEntropyForward {
  const Tensor &logits, &labels;     // [R, V], [R] int32
  const Tensor &log_sum_exp, &loss;  // [R], kept for backward; scalar
  double count;
};
/// dx = (softmax(x) - one_hot(label)) · dloss / count, in place.
struct CrossEntropyBackward {
  const Tensor& dloss;
  const Tensor& logits;  // x on entry, dx on return
  const Tensor &labels, &log_sum_exp;
  double count;
};

/// Row statistics over the columns held here, which are tokens first … first + V' - 1.
struct TokenStatistics {
  const Tensor& logits;   // [R, V'] fp32 (fp64); cap(logits) on return, where there is a cap
  const Tensor& targets;  // [R] i32, -1: none
  std::int64_t first;
  double soft_cap;                     // 0: none
  const Tensor& maxima;                // [R], like the following fp64
  const Tensor& argmax;                // token of the first of the largest; undefined: not wanted
  const Tensor &sums, &target_logits;  // Σ exp(x - maximum); 0 where the target is not held here
};
/// To the largest of all ranks' columns from that of the columns held here: sums ← sums · exp(own - maximum);
/// argmax ← -argmax where own = maximum, else the lowest number, so that the largest of the ranks is the
/// first.
struct TokenRebase {
  const Tensor &own, &maxima;  // [R] fp64
  const Tensor& sums;          // [R] fp64
  const Tensor& argmax;        // [R] fp64, or undefined
};
/// Rows over all columns. log_sum = maximum + log(sum); with n = log_sum - target logit:
///     log_probability = min(0, -n) (rounding can leave the target's logit above the logarithm of the sum
///     that holds it);  is_top = target logit = maximum;  loss = n + z_loss · log_sum².  All 0 without a
///     target.
struct TokenFinish {
  const Tensor& targets;                        // [R] i32
  const Tensor &maxima, &sums, &target_logits;  // [R] fp64
  double z_loss;
  const Tensor& log_sums;         // [R] fp64
  const Tensor& log_probability;  // [R] fp32 or fp64
  Tensor is_top = {};             // [R] u8; undefined, like the next: not wanted
  Tensor losses = {};             // [R] fp64
};
/// loss = Σ losses / count;  top = Σ is_top.
struct TokenTotals {
  const Tensor &losses, &is_top;
  double count;
  const Tensor& loss;  // scalar, fp32 or fp64
  const Tensor& top;   // scalar, fp64
};
/// dx = (softmax · (1 + 2·z_loss·log_sum) - one_hot(target) + l2_wrap · maximum · one_hot(argmax)) / count,
/// times the slope of the cap and the row's weight; 0 in rows without a target.
struct TokenGradient {
  const Tensor &logits, &targets;
  std::int64_t first;
  double soft_cap;
  const Tensor &maxima, &argmax, &log_sums;  // of all columns
  double count, z_loss, l2_wrap;
  const Tensor& dlogits;  // [R, V'], type of logits or bf16; may be logits
  Tensor weights = {};    // [R] fp64; undefined: 1
};
/// x = cap · tanh(x / cap), in place.
struct SoftCap {
  const Tensor& logits;
  double cap;
};

class LossKernels {
 public:
  virtual ~LossKernels() = default;
  virtual void dino_maxima(const DinoMaxima&) const = 0;
  virtual void dino_sums(const DinoSums&) const = 0;
  virtual void dino_finish(const DinoFinish&) const = 0;
  virtual void dino_backward(const DinoBackward&) const = 0;
  virtual void cross_entropy(const CrossEntropyForward&) const = 0;
  virtual void cross_entropy(const CrossEntropyBackward&) const = 0;
  virtual void token_statistics(const TokenStatistics&) const = 0;
  virtual void token_rebase(const TokenRebase&) const = 0;
  virtual void token_finish(const TokenFinish&) const = 0;
  virtual void token_totals(const TokenTotals&) const = 0;
  virtual void token_gradient(const TokenGradient&) const = 0;
  virtual void soft_cap(const SoftCap&) const = 0;
};

}  // namespace bireme
