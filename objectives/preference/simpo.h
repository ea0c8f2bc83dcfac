#pragma once

#include "objectives/preference/preference_loss.h"

namespace bireme {

/// Simple preference optimisation (Meng et al. 2024, eq. 6), without a reference:
///     ℓ = -log σ(m),   m = β·(a_w - a_l) - γ,   a the average log-probability of a token.
class SimpoLoss final : public PreferenceLoss {
 public:
  struct Options {
    double beta = 2, gamma = 1;
  };
  explicit SimpoLoss(const Options& options) : options_(options) {}

  int answers_per_record() const override { return 2; }
  bool needs_reference() const override { return false; }
  /// m of a pair.
  double margin(const Answer& chosen, const Answer& rejected) const {
    return options_.beta * (chosen.average() - rejected.average()) - options_.gamma;
  }
  double evaluate(std::span<const Answer> answers, std::span<double> slopes) const override;
  Terms terms(std::span<const Answer> step) const override;

 private:
  Options options_;
};

}  // namespace bireme
