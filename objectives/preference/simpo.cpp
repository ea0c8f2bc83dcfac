#include "objectives/preference/simpo.h"

namespace bireme {

double SimpoLoss::evaluate(std::span<const Answer> answers, std::span<double> slopes) const {
  double loss = 0;
  for (std::size_t i = 0; i + 1 < answers.size(); i += 2) {
    const double m = margin(answers[i], answers[i + 1]), pull = options_.beta * sigmoid(-m);
    loss += negative_log_sigmoid(m);
    slopes[i] = -pull / answers[i].tokens;
    slopes[i + 1] = pull / answers[i + 1].tokens;
  }
  return loss;
}

Terms SimpoLoss::terms(std::span<const Answer> step) const {
  const double ranked = mean_of_pairs(
      step, [](const Answer& w, const Answer& l) { return w.average() > l.average() ? 1.0 : 0.0; });
  Terms terms{{"margin", mean_of_pairs(step, [&](const Answer& w, const Answer& l) { return margin(w, l); })},
              {"average_wins", ranked}};
  for (const auto& term : log_probability_terms(step)) terms.push_back(term);
  return terms;
}

}  // namespace bireme
