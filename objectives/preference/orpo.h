#pragma once

#include "objectives/preference/preference_loss.h"

namespace bireme {

/// Odds-ratio preference optimisation (Hong, Lee and Thorne 2024), without a reference: with P the geometric
/// mean of an answer's token probabilities, a = log P and log odds(y) = a - log(1 - e^a),
///     L = L_NLL(chosen) + λ · mean over pairs of -log σ(d),   d = log odds(y_w) - log odds(y_l).
/// With δ = σ(-d):  ∂/∂s_w = -δ / ((1 - P_w)·n_w),  ∂/∂s_l = +δ / ((1 - P_l)·n_l)  (the paper prints its
/// equation 8 with the opposite sign). a is kept at or below a ceiling, so that P = 1 gives large numbers
/// and not infinite ones; the slope passes through as if it were not.
class OrpoLoss final : public PreferenceLoss {
 public:
  struct Options {
    double lambda = 0.1;
    double log_prob_ceiling = -1e-6;
  };
  explicit OrpoLoss(const Options& options) : options_(options) {}

  /// What one pair tells of the gradient.
  struct Pair {
    double log_odds_ratio = 0;                                ///< d
    double delta = 0;                                         ///< δ
    double inverse_chosen = 0, inverse_rejected = 0;          ///< 1 / (1 - P)
    double coefficient_chosen = 0, coefficient_rejected = 0;  ///< δ / (1 - P)
    double loss() const { return negative_log_sigmoid(log_odds_ratio); }
  };
  /// @param chosen, rejected  average log-probabilities a
  Pair compare(double chosen, double rejected) const;

  int answers_per_record() const override { return 2; }
  bool needs_reference() const override { return false; }
  double evaluate(std::span<const Answer> answers, std::span<double> slopes) const override;
  double imitation_weight() const override { return 1; }
  double preference_weight() const override { return options_.lambda; }
  Terms terms(std::span<const Answer> step) const override;

 private:
  Options options_;
};

/// log(P / (1 - P)) of a = log P < 0, to full precision from a = -1e-6 down.
double log_odds(double a);

}  // namespace bireme
