#pragma once

#include "objectives/preference/preference_loss.h"

namespace bireme {

/// Kahneman-Tversky optimisation of single answers with a label (Ethayarajh et al. 2024, eq. 8):
///     liked:  ℓ = λ_D·σ(-u), u = β(ρ - z₀);   not liked:  ℓ = λ_U·σ(-u), u = β(z₀ - ρ)
///     ∂ℓ/∂s = ∓λ·β·σ(u)·σ(-u)
/// z₀ = max(0, mean of ρ over the step's mismatched texts, each an answer to another prompt) is a constant of
/// the step.
class KtoLoss final : public PreferenceLoss {
 public:
  struct Options {
    double beta = 0.1, desirable_weight = 1, undesirable_weight = 1;
  };
  explicit KtoLoss(const Options& options) : options_(options) {}

  /// z₀
  double reference_point() const { return reference_point_; }

  int answers_per_record() const override { return 1; }
  bool needs_reference() const override { return true; }
  bool needs_mismatched() const override { return true; }
  /// Without any, z₀ = 0.
  void set_mismatched(double log_ratios, double count) override;
  double evaluate(std::span<const Answer> answers, std::span<double> slopes) const override;
  Terms terms(std::span<const Answer> step) const override;

 private:
  Options options_;
  double reference_point_ = 0;
};

/// Whose answer stands in for that of record i in the estimate of z₀.
enum class KtoPairing {
  previous_other_prompt,  ///< of the nearest record before, cyclically in the batch, with another prompt
  previous,               ///< of the record before, cyclically in the batch, whatever its prompt
};
/// For each record of a step the record whose answer it borrows. Where all prompts are the same: the one
/// before. Empty for a step of one record, which has nothing to borrow.
/// @param prompts  answers to the same prompt have the same number
std::vector<std::int64_t> mismatched_records(std::span<const std::int64_t> prompts, KtoPairing pairing);

}  // namespace bireme
