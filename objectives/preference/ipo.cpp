#include "objectives/preference/ipo.h"

namespace bireme {

double IpoLoss::margin(const Answer& w, const Answer& l) const {
  return w.log_ratio() * share(w) - l.log_ratio() * share(l);
}

double IpoLoss::evaluate(std::span<const Answer> answers, std::span<double> slopes) const {
  double loss = 0;
  for (std::size_t i = 0; i + 1 < answers.size(); i += 2) {
    const Answer &w = answers[i], &l = answers[i + 1];
    const double distance = margin(w, l) - 1 / (2 * options_.beta);
    loss += distance * distance;
    slopes[i] = 2 * distance * share(w);
    slopes[i + 1] = -2 * distance * share(l);
  }
  return loss;
}

Terms IpoLoss::terms(std::span<const Answer> step) const {
  Terms terms{{"gap", mean_of_pairs(step, [&](const Answer& w, const Answer& l) { return margin(w, l); })}};
  for (const auto& term : reward_terms(step, options_.beta)) terms.push_back(term);
  for (const auto& term : log_probability_terms(step)) terms.push_back(term);
  return terms;
}

}  // namespace bireme
