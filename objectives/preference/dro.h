#pragma once

#include "objectives/preference/preference_loss.h"

namespace bireme {

/// Direct reward optimisation of single answers with a score (Richemond et al. 2024, eq. 4): policy and value
/// function regress the reward together,
///     ℓ = ½·δ²,   δ = r(x, y) - V(x) - τ·ρ(y).
/// ∂ℓ/∂V = -δ. For the policy the paper divides by τ: ∂/∂s = -δ where `rescale_policy`, else the true -τ·δ.
/// With `length_normalise`, ρ/n stands in for ρ: another method, with a target per token.
class DroLoss final : public PreferenceLoss {
 public:
  /// Where V comes from.
  enum class Variant {
    value,  ///< V(x) of a value function (DRO-V): given with the answers
    batch,  ///< the step's mean of r - τ·ρ (DRO-P, appendix B: half its variance is minimised)
    group  ///< the mean of r - τ·ρ over the step's other answers to the prompt; without any, the step's mean
  };
  struct Options {
    double tau = 1;
    bool rescale_policy = true, length_normalise = false;
    Variant variant = Variant::value;
  };
  explicit DroLoss(const Options& options) : options_(options) {}

  double residual(const Answer& y) const { return y.reward - y.value - options_.tau * ratio(y); }

  int answers_per_record() const override { return 1; }
  bool needs_reference() const override { return true; }
  bool needs_whole_step() const override { return options_.variant != Variant::value; }
  /// Sets the values, where the step gives them.
  void settle(std::span<Answer> step) const override;
  double evaluate(std::span<const Answer> answers, std::span<double> slopes) const override;
  double value_residual(const Answer& answer) const override { return residual(answer); }
  Terms terms(std::span<const Answer> step) const override;

 private:
  double ratio(const Answer& y) const {
    return options_.length_normalise ? y.log_ratio() / y.tokens : y.log_ratio();
  }
  Options options_;
};

}  // namespace bireme
