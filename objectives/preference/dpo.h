#pragma once

#include "objectives/preference/preference_loss.h"

namespace bireme {

/// Direct preference optimisation (Rafailov et al. 2023, eq. 7): with h = (s_w - s_l) - γ·(q_w - q_l),
///     ℓ = -(1 - ε)·log σ(βh) - ε·log σ(-βh),   ∂ℓ/∂s_w = -β·(σ(-βh) - ε) = -∂ℓ/∂s_l.
/// γ = 1 is DPO; less attenuates the reference, 0 ignores it (Chen et al. 2024, section 5). ε smooths labels
/// of which some are wrong.
class DpoLoss final : public PreferenceLoss {
 public:
  struct Options {
    double beta = 0.1, gamma = 1, label_smoothing = 0;
  };
  explicit DpoLoss(const Options& options) : options_(options) {}

  int answers_per_record() const override { return 2; }
  bool needs_reference() const override { return true; }
  /// βh of a pair.
  double margin(const Answer& chosen, const Answer& rejected) const;
  double evaluate(std::span<const Answer> answers, std::span<double> slopes) const override;
  Terms terms(std::span<const Answer> step) const override;

 private:
  Options options_;
};

}  // namespace bireme
