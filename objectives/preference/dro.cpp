#include "objectives/preference/dro.h"

#include <algorithm>
#include <map>

namespace bireme {

namespace {

struct Spread {
  double mean = 0, deviation = 0;
};

/// In two passes: one would cancel where the mean is large.
template <class Function>
Spread spread_of(std::span<const Answer> answers, const Function& of) {
  Spread spread{.mean = mean_of(answers, of)};
  spread.deviation = std::sqrt(mean_of(answers, [&](const Answer& y) {
    const double distance = of(y) - spread.mean;
    return distance * distance;
  }));
  return spread;
}

}  // namespace

void DroLoss::settle(std::span<Answer> step) const {
  const auto target = [&](const Answer& y) { return y.reward - options_.tau * ratio(y); };
  const double mean = mean_of(step, target);
  struct Group {
    double sum = 0, count = 0;
  };
  std::map<std::int64_t, Group> groups;
  for (const Answer& y : step) {
    groups[y.prompt].sum += target(y);
    groups[y.prompt].count += 1;
  }
  for (Answer& y : step) {
    const Group& group = groups[y.prompt];
    const bool alone = options_.variant == Variant::batch || group.count < 2;
    y.value = alone ? mean : (group.sum - target(y)) / (group.count - 1);
  }
}

double DroLoss::evaluate(std::span<const Answer> answers, std::span<double> slopes) const {
  double loss = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const double delta = residual(answers[i]);
    loss += 0.5 * delta * delta;
    slopes[i] = -delta * (options_.rescale_policy ? 1 : options_.tau) /
                (options_.length_normalise ? answers[i].tokens : 1);
  }
  return loss;
}

Terms DroLoss::terms(std::span<const Answer> step) const {
  const auto advantage = [](const Answer& y) { return y.reward - y.value; };
  const auto reward = [](const Answer& y) { return y.reward; };
  const auto rho = [](const Answer& y) { return y.log_ratio(); };
  const Spread advantages = spread_of(step, advantage), rewards = spread_of(step, reward),
               ratios = spread_of(step, rho);
  const double covariance =
      mean_of(step, [&](const Answer& y) { return (y.reward - rewards.mean) * (rho(y) - ratios.mean); });
  double largest = 0, largest_of_token = 0;
  for (const Answer& y : step) {
    largest = std::max(largest, std::fabs(rho(y)));
    largest_of_token = std::max(largest_of_token, std::fabs(rho(y) / y.tokens));
  }
  const double deviations = rewards.deviation * ratios.deviation;
  const double variance = rewards.deviation * rewards.deviation;
  return {{"advantage", advantages.mean},
          {"advantage_deviation", advantages.deviation},
          {"value", mean_of(step, [](const Answer& y) { return y.value; })},
          {"value_explained", variance > 0 ? 1 - advantages.deviation * advantages.deviation / variance : 0},
          {"value_loss", 0.5 * mean_of(step,
                                       [&](const Answer& y) {
                                         const double delta = residual(y);
                                         return delta * delta;
                                       })},
          {"regulariser", 0.5 * options_.tau * options_.tau *
                              mean_of(step, [&](const Answer& y) { return ratio(y) * ratio(y); })},
          {"policy_term", -mean_of(step, [&](const Answer& y) { return advantage(y) * ratio(y); })},
          {"log_ratio", ratios.mean},
          {"log_ratio_deviation", ratios.deviation},
          {"log_ratio_largest", largest},
          {"log_ratio_token", mean_of(step, [&](const Answer& y) { return rho(y) / y.tokens; })},
          {"log_ratio_token_largest", largest_of_token},
          {"kl_behaviour", ratios.mean},
          {"reward_log_ratio_correlation", deviations > 0 ? covariance / deviations : 0},
          {"answer_tokens", mean_of(step, [](const Answer& y) { return y.tokens; })}};
}

}  // namespace bireme
