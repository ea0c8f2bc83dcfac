#pragma once

#include "objectives/preference/preference_loss.h"

namespace bireme {

/// Supervised fine-tuning: likelihood alone, L = -(1/N) Σ log π over the N imitated tokens of the step.
class SftLoss final : public PreferenceLoss {
 public:
  int answers_per_record() const override { return 1; }
  bool needs_reference() const override { return false; }
  double evaluate(std::span<const Answer> answers, std::span<double> slopes) const override;
  double imitation_weight() const override { return 1; }
  double preference_weight() const override { return 0; }
  Terms terms(std::span<const Answer> step) const override;
};

}  // namespace bireme
