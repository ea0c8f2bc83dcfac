#include "objectives/preference/sft.h"

#include <algorithm>

namespace bireme {

double SftLoss::evaluate(std::span<const Answer> /*answers*/, std::span<double> slopes) const {
  std::ranges::fill(slopes, 0.0);
  return 0;
}

Terms SftLoss::terms(std::span<const Answer> step) const {
  return {{"log_prob", mean_of(step, [](const Answer& y) { return y.average(); })},
          {"answer_tokens", mean_of(step, [](const Answer& y) { return y.tokens; })}};
}

}  // namespace bireme
