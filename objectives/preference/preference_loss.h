#pragma once

#include <span>

#include "objectives/preference/answer.h"

namespace bireme {

/// What an objective of alignment is: a function from the sums of a step's answers to a loss and its
/// derivative by each sum. The rest is the same for all of them: the derivative, and for terms of likelihood
/// a number more, weighs the gradient of each scored token,
///     ∂L/∂z[t, v] = (∂L/∂s(y) + m_t) · (1[v = y_t] - softmax(z_t)[v]).
class PreferenceLoss {
 public:
  virtual ~PreferenceLoss() = default;

  /// Answers of one record, neighbours in every list: 2 for pairs, the chosen one first.
  virtual int answers_per_record() const = 0;
  virtual bool needs_reference() const = 0;
  /// What the sums of a whole step must settle before any of its losses is known, such as a mean over the
  /// batch: fills in what the answers lack. Called with all answers of the step, where needs_whole_step().
  virtual bool needs_whole_step() const { return false; }
  virtual void settle(std::span<Answer> /*step*/) const {}

  /// Whether a step needs log ratios of mismatched texts, prompts with answers to others, and what to do with
  /// their sum: a constant of the step.
  virtual bool needs_mismatched() const { return false; }
  virtual void set_mismatched(double /*log_ratios*/, double /*count*/) {}

  /// The sum of the records' losses, terms of likelihood apart; adds nothing up over ranks and divides by
  /// nothing.
  /// @param slopes  receives ∂(that sum)/∂s(y) of each answer
  virtual double evaluate(std::span<const Answer> answers, std::span<double> slopes) const = 0;

  /// By how much the target of a value function exceeds its value, which is also -∂ℓ/∂V; 0 where there is
  /// none.
  virtual double value_residual(const Answer& /*answer*/) const { return 0; }

  /// What likelihood counts for: 0 where it is no part of the loss.
  virtual double imitation_weight() const { return 0; }
  /// What evaluate() counts for beside it.
  virtual double preference_weight() const { return 1; }

  /// The step's own numbers.
  /// @param step  all answers of the step, over all ranks
  virtual Terms terms(std::span<const Answer> step) const = 0;
};

/// Mean over answers of a function of each.
template <class Function>
double mean_of(std::span<const Answer> answers, const Function& function) {
  double sum = 0;
  for (const Answer& answer : answers) sum += function(answer);
  return answers.empty() ? 0 : sum / static_cast<double>(answers.size());
}

/// Mean over pairs of a function of chosen and rejected.
template <class Function>
double mean_of_pairs(std::span<const Answer> answers, const Function& function) {
  double sum = 0;
  for (std::size_t i = 0; i + 1 < answers.size(); i += 2) sum += function(answers[i], answers[i + 1]);
  return answers.size() < 2 ? 0 : 2 * sum / static_cast<double>(answers.size());
}

/// Log-probabilities of chosen and rejected answers, sums and averages.
Terms log_probability_terms(std::span<const Answer> pairs);
/// Rewards β·ρ of chosen and rejected answers, their margin, and the share of pairs in which the chosen one
/// has the larger.
Terms reward_terms(std::span<const Answer> pairs, double beta);
/// The value below which a share of the numbers lies, linear between neighbours. 0 for none.
double quantile(std::vector<double> numbers, double share);

}  // namespace bireme
