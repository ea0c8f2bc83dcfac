#pragma once

#include "objectives/preference/preference_loss.h"

namespace bireme {

/// Identity preference optimisation (Azar et al. 2023, eq. 17): ℓ = (h - 1/(2β))², the gap of the log ratios
/// regressed on a constant.
///     length_normalise:  h = ρ_w/n_w - ρ_l/n_l, a gap per token, as public trainers have it
///     otherwise:         h = ρ_w - ρ_l, the paper's
class IpoLoss final : public PreferenceLoss {
 public:
  struct Options {
    double beta = 0.1;  ///< τ of the paper
    bool length_normalise = true;
  };
  explicit IpoLoss(const Options& options) : options_(options) {}

  int answers_per_record() const override { return 2; }
  bool needs_reference() const override { return true; }
  /// h of a pair.
  double margin(const Answer& chosen, const Answer& rejected) const;
  double evaluate(std::span<const Answer> answers, std::span<double> slopes) const override;
  Terms terms(std::span<const Answer> step) const override;

 private:
  /// ∂h/∂s(y), but for its sign.
  double share(const Answer& y) const { return options_.length_normalise ? 1 / y.tokens : 1; }
  Options options_;
};

}  // namespace bireme
