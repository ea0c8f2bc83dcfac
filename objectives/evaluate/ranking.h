#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "objectives/answer_scores.h"

namespace bireme {

/// A pair as a model and, where there is one, its reference score it. The chosen answer is the one that more
/// raters preferred.
struct RankedPair {
  std::int64_t record = -1;
  AnswerScore chosen, rejected;                         ///< s and n under the policy
  std::optional<std::array<double, 2>> reference = {};  ///< q of chosen and rejected
  double preference = 1;                                ///< α: share of raters for the chosen; ½ is a tie
};

/// What became of a pair between reference and policy: 2·[reference right] + [policy right].
enum class RankingCategory : std::int8_t {
  tie = -1,
  wrong_wrong = 0,
  wrong_right = 1,  ///< flipped
  right_wrong = 2,  ///< lost
  right_right = 3,
};

/// A pair judged. Log ratios are of the chosen over the rejected answer.
struct PairOutcome {
  RankingCategory category = RankingCategory::tie;  ///< without a reference: wrong_wrong or right_right
  double log_ratio = 0;                             ///< Δ = s_w - s_l
  double reference_log_ratio = 0;                   ///< q_w - q_l; c is its negative
  /// log(1 + e^(-βc)): the loss of DPO at which the pair is ranked right, known before training.
  double flip_threshold = 0;
  double dpo_loss = 0;  ///< -log σ(β(Δ + c))
};

struct RankingOptions {
  std::vector<double> betas{0.01, 0.1, 1, 5, 10};  ///< at which the ideal is computed
  double epsilon = 1e-3;                           ///< α of an answer that no rater preferred
  double beta = 0.1;                               ///< of flip thresholds and losses
  double tie_tolerance = 0.01;                     ///< of probabilities, in the measure with ties
  /// α where each pair has a single rater; without it such data have no ideal.
  std::optional<double> assumed_preference = {};

  /// @throws Error (usage)
  void validate() const;
};

/// Shares of pairs, plain (by s) and length-normalised (by a = s/n).
struct Accuracies {
  double plain = 0, normalized = 0;
};

struct IdealizedAccuracy {
  std::vector<double> values;  ///< one for each β
  std::vector<double> gaps;    ///< values - the policy's accuracy
  double minimum = 0, median = 0, maximum = 0, gap_to_median = 0;
};

/// Chen et al. 2024, "Preference Learning Algorithms Do Not Learn Preference Rankings". Ties are left out but
/// where said.
struct RankingResult {
  std::int64_t count = 0, ties = 0;
  Accuracies accuracy;  ///< R and R̃: share of pairs with s_w ≥ s_l (definition 2.3), a_w ≥ a_l
  Accuracies error;     ///< standard errors of these
  std::optional<Accuracies> with_ties;  ///< a tie is right when both probabilities are about equal

  // With a reference.
  std::optional<Accuracies> reference;
  double reward_accuracy = 0;                     ///< share with ρ_w > ρ_l
  std::array<std::int64_t, 4> categories{};       ///< counts by RankingCategory
  std::array<double, 4> category_loss{};          ///< mean DPO loss of each; NaN for an empty one
  std::array<double, 4> category_log_ratio{};     ///< mean Δ of each
  double mean_shortfall = 0;                      ///< mean of c
  double chosen_reward = 0, rejected_reward = 0;  ///< mean ρ
  std::array<double, 3> threshold_quantiles{};    ///< 10 %, 50 %, 90 % of flip thresholds

  /// With a reference and known (or assumed) proportions α: how often the perfect optimum of the objective
  /// would rank right (theorem 3.1), Δ* = q_w - q_l + (1/β) log(α/(1 - α)).
  std::optional<IdealizedAccuracy> idealized, idealized_normalized;

  std::vector<PairOutcome> outcomes;  ///< of each pair, in order
};

/// @throws Error (usage) from the options, (data) when there is no pair but ties
RankingResult evaluate_ranking(std::span<const RankedPair> pairs, const RankingOptions& options = {});

/// True when any pair says more than that a single rater preferred its chosen answer.
bool has_votes(std::span<const RankedPair> pairs);

/// Several answers to one prompt with the scores that people gave them.
struct RankedAnswers {
  std::vector<AnswerScore> answers;
  std::vector<double> scores;
};

struct ManyRankingResult {
  std::int64_t prompts = 0, pairs = 0;
  /// Share of prompts whose answers the model ranks exactly as people do, where rank is 1 + the number of
  /// strictly better answers; 1/K! by chance.
  Accuracies exact_match;
  /// Share, over all pairs of answers with different scores, of those that the model ranks the same way.
  Accuracies pairwise;
};
/// @throws Error (data) when no prompt has two answers
ManyRankingResult evaluate_ranking(std::span<const RankedAnswers> prompts);

}  // namespace bireme
