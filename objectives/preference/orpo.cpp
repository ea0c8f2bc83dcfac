#include "objectives/preference/orpo.h"

#include <algorithm>
#include <numbers>

namespace bireme {

double log_odds(double a) {
  // Either form loses all digits where the other is exact.
  const double log_complement = a < -std::numbers::ln2 ? std::log1p(-std::exp(a)) : std::log(-std::expm1(a));
  return a - log_complement;
}

OrpoLoss::Pair OrpoLoss::compare(double chosen, double rejected) const {
  const double w = std::min(chosen, options_.log_prob_ceiling),
               l = std::min(rejected, options_.log_prob_ceiling);
  const double odds_w = log_odds(w), odds_l = log_odds(l);
  Pair pair{.log_odds_ratio = odds_w - odds_l};
  pair.delta = sigmoid(-pair.log_odds_ratio);
  pair.inverse_chosen = -1 / std::expm1(w);
  pair.inverse_rejected = -1 / std::expm1(l);
  // δ/(1 - P_w) = 1/((1 - P_w) + P_w/odds_l): no product of a small and a large number.
  pair.coefficient_chosen = 1 / (-std::expm1(w) + std::exp(w - odds_l));
  pair.coefficient_rejected = pair.delta * pair.inverse_rejected;
  return pair;
}

double OrpoLoss::evaluate(std::span<const Answer> answers, std::span<double> slopes) const {
  double loss = 0;
  for (std::size_t i = 0; i + 1 < answers.size(); i += 2) {
    const Pair pair = compare(answers[i].average(), answers[i + 1].average());
    loss += pair.loss();
    slopes[i] = -pair.coefficient_chosen / answers[i].tokens;
    slopes[i + 1] = pair.coefficient_rejected / answers[i + 1].tokens;
  }
  return loss;
}

Terms OrpoLoss::terms(std::span<const Answer> step) const {
  std::vector<Pair> pairs;
  double wins = 0, at_ceiling = 0;
  for (std::size_t i = 0; i + 1 < step.size(); i += 2) {
    pairs.push_back(compare(step[i].average(), step[i + 1].average()));
    wins += pairs.back().log_odds_ratio > 0 ? 1 : 0;
    for (std::size_t j = i; j < i + 2; ++j)
      at_ceiling += step[j].average() >= options_.log_prob_ceiling ? 1 : 0;
  }
  const double count = std::max<double>(1, static_cast<double>(pairs.size()));
  Terms terms;
  const auto add = [&](const std::string& name, const auto& of, bool spread) {
    std::vector<double> values;
    double sum = 0;
    for (const Pair& pair : pairs) {
      values.push_back(of(pair));
      sum += values.back();
    }
    terms.emplace_back(name, sum / count);
    if (!spread) return;
    terms.emplace_back(name + "_p10", quantile(values, 0.1));
    terms.emplace_back(name + "_p50", quantile(values, 0.5));
    terms.emplace_back(name + "_p90", quantile(values, 0.9));
  };
  add(
      "or_loss", [](const Pair& p) { return p.loss(); }, false);
  add(
      "log_odds", [](const Pair& p) { return p.log_odds_ratio; }, true);
  terms.emplace_back("odds_wins", wins / count);
  add(
      "delta", [](const Pair& p) { return p.delta; }, true);
  add(
      "inverse_chosen", [](const Pair& p) { return p.inverse_chosen; }, true);
  add(
      "inverse_rejected", [](const Pair& p) { return p.inverse_rejected; }, true);
  add(
      "coefficient_chosen", [](const Pair& p) { return p.coefficient_chosen; }, true);
  add(
      "coefficient_rejected", [](const Pair& p) { return p.coefficient_rejected; }, true);
  terms.emplace_back("at_ceiling", at_ceiling / (2 * count));
  for (const auto& term : log_probability_terms(step)) terms.push_back(term);
  return terms;
}

}  // namespace bireme
