#include "objectives/preference/preference_loss.h"

#include <algorithm>

namespace bireme {

Terms log_probability_terms(std::span<const Answer> pairs) {
  const auto chosen = [&](const auto& of) {
    return mean_of_pairs(pairs, [&](const Answer& w, const Answer&) { return of(w); });
  };
  const auto rejected = [&](const auto& of) {
    return mean_of_pairs(pairs, [&](const Answer&, const Answer& l) { return of(l); });
  };
  const auto sum = [](const Answer& y) { return y.log_probability; };
  const auto average = [](const Answer& y) { return y.average(); };
  return {{"chosen_log_prob", chosen(average)},
          {"rejected_log_prob", rejected(average)},
          {"chosen_log_prob_sum", chosen(sum)},
          {"rejected_log_prob_sum", rejected(sum)}};
}

Terms reward_terms(std::span<const Answer> pairs, double beta) {
  const double chosen =
      mean_of_pairs(pairs, [&](const Answer& w, const Answer&) { return beta * w.log_ratio(); });
  const double rejected =
      mean_of_pairs(pairs, [&](const Answer&, const Answer& l) { return beta * l.log_ratio(); });
  const double wins = mean_of_pairs(
      pairs, [](const Answer& w, const Answer& l) { return w.log_ratio() > l.log_ratio() ? 1.0 : 0.0; });
  return {{"chosen_reward", chosen},
          {"rejected_reward", rejected},
          {"reward_margin", chosen - rejected},
          {"reward_accuracy", wins}};
}

double quantile(std::vector<double> numbers, double share) {
  if (numbers.empty()) return 0;
  std::ranges::sort(numbers);
  const double at = share * static_cast<double>(numbers.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, numbers.size() - 1);
  return numbers[below] + (at - static_cast<double>(below)) * (numbers[above] - numbers[below]);
}

}  // namespace bireme
