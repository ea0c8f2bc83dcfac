#include "objectives/evaluate/ranking.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "objectives/preference/preference_loss.h"

namespace bireme {

namespace {

double standard_error(double share, std::int64_t count) {
  return std::sqrt(share * (1 - share) / static_cast<double>(count));
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return quantile(values, 0.5);
}

bool is_tie(const RankedPair& pair) { return pair.preference == 0.5; }

/// Δ* per β: the optimum's log ratio, from the reference's and the proportions of raters.
double ideal_log_ratio(double reference, double alpha, double epsilon, double beta) {
  const double other = 1 - alpha > 0 ? 1 - alpha : epsilon;
  return reference + (std::log(alpha) - std::log(other)) / beta;
}

/// Counts, and turns counts into shares at the end.
class Counter {
 public:
  void add(bool plain, bool normalized) {
    plain_ += plain;
    normalized_ += normalized;
    ++count_;
  }
  Accuracies shares() const {
    const auto n = static_cast<double>(std::max<std::int64_t>(count_, 1));
    return {static_cast<double>(plain_) / n, static_cast<double>(normalized_) / n};
  }

 private:
  std::int64_t plain_ = 0, normalized_ = 0, count_ = 0;
};

double per_token(double sum, const AnswerScore& answer) { return sum / static_cast<double>(answer.tokens); }

PairOutcome outcome_of(const RankedPair& pair, double beta) {
  PairOutcome outcome;
  outcome.log_ratio = pair.chosen.log_probability - pair.rejected.log_probability;
  const bool is_right = outcome.log_ratio >= 0;
  if (!pair.reference) {
    outcome.category = is_right ? RankingCategory::right_right : RankingCategory::wrong_wrong;
  } else {
    outcome.reference_log_ratio = (*pair.reference)[0] - (*pair.reference)[1];
    outcome.category =
        static_cast<RankingCategory>(2 * (outcome.reference_log_ratio >= 0 ? 1 : 0) + (is_right ? 1 : 0));
    outcome.flip_threshold = negative_log_sigmoid(-beta * outcome.reference_log_ratio);
    outcome.dpo_loss = negative_log_sigmoid(beta * (outcome.log_ratio - outcome.reference_log_ratio));
  }
  if (is_tie(pair)) outcome.category = RankingCategory::tie;
  return outcome;
}

/// q of chosen and rejected, of pairs that all have a reference.
std::array<double, 2> reference_of(const RankedPair& pair) {
  return pair.reference.value_or(std::array{0.0, 0.0});
}

void add_reference(RankingResult& result, std::span<const RankedPair> pairs) {
  Counter reference;
  std::array<double, 4> loss{}, log_ratio{};
  std::vector<double> thresholds;
  thresholds.reserve(pairs.size());
  std::int64_t rewards_right = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const RankedPair& pair = pairs[i];
    if (is_tie(pair)) continue;
    const auto [q_w, q_l] = reference_of(pair);
    const PairOutcome& outcome = result.outcomes[i];
    reference.add(q_w >= q_l, per_token(q_w, pair.chosen) >= per_token(q_l, pair.rejected));
    const double rho_w = pair.chosen.log_probability - q_w, rho_l = pair.rejected.log_probability - q_l;
    rewards_right += rho_w > rho_l;
    result.chosen_reward += rho_w;
    result.rejected_reward += rho_l;
    result.mean_shortfall -= outcome.reference_log_ratio;
    const auto category = static_cast<std::size_t>(outcome.category);
    ++result.categories[category];
    loss[category] += outcome.dpo_loss;
    log_ratio[category] += outcome.log_ratio;
    thresholds.push_back(outcome.flip_threshold);
  }
  const auto n = static_cast<double>(result.count);
  result.reference = reference.shares();
  result.reward_accuracy = static_cast<double>(rewards_right) / n;
  result.chosen_reward /= n;
  result.rejected_reward /= n;
  result.mean_shortfall /= n;
  for (std::size_t c = 0; c < 4; ++c) {
    const auto count = static_cast<double>(result.categories[c]);
    result.category_loss[c] = loss[c] / count;  // NaN where there is none
    result.category_log_ratio[c] = log_ratio[c] / count;
  }
  std::ranges::sort(thresholds);
  result.threshold_quantiles = {quantile(thresholds, 0.1), quantile(thresholds, 0.5),
                                quantile(thresholds, 0.9)};
}

void summarize(IdealizedAccuracy& ideal, double accuracy) {
  for (const double value : ideal.values) ideal.gaps.push_back(value - accuracy);
  ideal.minimum = *std::ranges::min_element(ideal.values);
  ideal.maximum = *std::ranges::max_element(ideal.values);
  ideal.median = median(ideal.values);
  ideal.gap_to_median = ideal.median - accuracy;
}

void add_ideal(RankingResult& result, std::span<const RankedPair> pairs, const RankingOptions& options,
               const std::optional<double>& assumed) {
  IdealizedAccuracy plain, normalized;
  for (const double beta : options.betas) {
    Counter counter;
    for (const RankedPair& pair : pairs) {
      if (is_tie(pair)) continue;
      const double alpha = assumed.value_or(pair.preference);
      const auto [q_w, q_l] = reference_of(pair);
      counter.add(ideal_log_ratio(q_w - q_l, alpha, options.epsilon, beta) > 0,
                  ideal_log_ratio(per_token(q_w, pair.chosen) - per_token(q_l, pair.rejected), alpha,
                                  options.epsilon, beta) > 0);
    }
    plain.values.push_back(counter.shares().plain);
    normalized.values.push_back(counter.shares().normalized);
  }
  summarize(plain, result.accuracy.plain);
  summarize(normalized, result.accuracy.normalized);
  result.idealized = std::move(plain);
  result.idealized_normalized = std::move(normalized);
}

Accuracies accuracy_with_ties(std::span<const RankedPair> pairs, double tolerance) {
  Counter counter;
  for (const RankedPair& pair : pairs) {
    const double s_w = pair.chosen.log_probability, s_l = pair.rejected.log_probability,
                 a_w = pair.chosen.mean(), a_l = pair.rejected.mean();
    if (is_tie(pair))
      counter.add(std::abs(std::exp(s_w) - std::exp(s_l)) < tolerance,
                  std::abs(std::exp(a_w) - std::exp(a_l)) < tolerance);
    else
      counter.add(s_w > s_l, a_w > a_l);
  }
  return counter.shares();
}

}  // namespace

void RankingOptions::validate() const {
  const auto refuse = [](const std::string& what, const std::string& remedy) {
    throw Error(ErrorKind::usage, what, "ranking", remedy);
  };
  if (betas.empty() || std::ranges::any_of(betas, [](double one) { return !(one > 0); }) || !(beta > 0))
    refuse("beta is not positive", "give numbers above 0, such as 0.1");
  if (!(epsilon > 0 && epsilon < 0.5))
    refuse(fmt::format("epsilon is {}", epsilon), "choose above 0, below 0.5");
  if (assumed_preference && !(*assumed_preference > 0.5 && *assumed_preference < 1))
    refuse(fmt::format("the assumed preference is {}", *assumed_preference), "choose above 0.5, below 1");
}

bool has_votes(std::span<const RankedPair> pairs) {
  return std::ranges::any_of(pairs, [](const RankedPair& pair) { return pair.preference < 1; });
}

RankingResult evaluate_ranking(std::span<const RankedPair> pairs, const RankingOptions& options) {
  options.validate();
  RankingResult result;
  Counter counter;
  for (const RankedPair& pair : pairs) {
    result.outcomes.push_back(outcome_of(pair, options.beta));
    if (is_tie(pair)) {
      ++result.ties;
      continue;
    }
    ++result.count;
    counter.add(pair.chosen.log_probability >= pair.rejected.log_probability,
                pair.chosen.mean() >= pair.rejected.mean());
  }
  if (result.count == 0)
    throw Error(ErrorKind::data, fmt::format("of {} pairs all are ties", pairs.size()), "ranking",
                "give pairs of which one answer is preferred");
  result.accuracy = counter.shares();
  result.error = {standard_error(result.accuracy.plain, result.count),
                  standard_error(result.accuracy.normalized, result.count)};
  if (result.ties > 0) result.with_ties = accuracy_with_ties(pairs, options.tie_tolerance);
  if (std::ranges::all_of(pairs, [](const RankedPair& pair) { return pair.reference.has_value(); })) {
    add_reference(result, pairs);
    const bool is_voted = has_votes(pairs);
    if (is_voted)
      add_ideal(result, pairs, options, {});
    else if (options.assumed_preference)
      add_ideal(result, pairs, options, options.assumed_preference);
  }
  return result;
}

namespace {

/// Competition ranks: 1 + the number of strictly better ones.
template <class Value>
std::vector<int> ranks(std::size_t count, const Value& value) {
  std::vector<int> ranks(count, 1);
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t j = 0; j < count; ++j) ranks[i] += value(j) > value(i);
  return ranks;
}

}  // namespace

ManyRankingResult evaluate_ranking(std::span<const RankedAnswers> prompts) {
  ManyRankingResult result;
  Counter exact, pairwise;
  for (const RankedAnswers& prompt : prompts) {
    const std::size_t count = prompt.answers.size();
    if (count < 2) continue;
    ++result.prompts;
    const auto plain = [&](std::size_t i) { return prompt.answers[i].log_probability; };
    const auto normalized = [&](std::size_t i) { return prompt.answers[i].mean(); };
    const std::vector<int> human = ranks(count, [&](std::size_t i) { return prompt.scores[i]; });
    exact.add(ranks(count, plain) == human, ranks(count, normalized) == human);
    for (std::size_t i = 0; i < count; ++i)
      for (std::size_t j = 0; j < count; ++j) {
        if (!(prompt.scores[i] > prompt.scores[j])) continue;
        pairwise.add(plain(i) >= plain(j), normalized(i) >= normalized(j));
        ++result.pairs;
      }
  }
  if (result.prompts == 0)
    throw Error(ErrorKind::data, "no prompt has two answers with scores", "ranking",
                "give scored answers, several to a prompt");
  result.exact_match = exact.shares();
  result.pairwise = pairwise.shares();
  return result;
}

}  // namespace bireme
