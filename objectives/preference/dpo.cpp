#include "objectives/preference/dpo.h"

namespace bireme {

double DpoLoss::margin(const Answer& w, const Answer& l) const {
  const double policy = w.log_probability - l.log_probability, reference = w.reference - l.reference;
  return options_.beta * (policy - options_.gamma * reference);
}

double DpoLoss::evaluate(std::span<const Answer> answers, std::span<double> slopes) const {
  const double epsilon = options_.label_smoothing;
  double loss = 0;
  for (std::size_t i = 0; i + 1 < answers.size(); i += 2) {
    const double m = margin(answers[i], answers[i + 1]);
    loss += (1 - epsilon) * negative_log_sigmoid(m) + epsilon * negative_log_sigmoid(-m);
    slopes[i] = -options_.beta * (sigmoid(-m) - epsilon);
    slopes[i + 1] = -slopes[i];
  }
  return loss;
}

Terms DpoLoss::terms(std::span<const Answer> step) const {
  Terms terms = reward_terms(step, options_.beta);
  for (const auto& term : log_probability_terms(step)) terms.push_back(term);
  return terms;
}

}  // namespace bireme
