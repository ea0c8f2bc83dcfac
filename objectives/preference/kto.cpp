#include "objectives/preference/kto.h"

#include <algorithm>

namespace bireme {

void KtoLoss::set_mismatched(double log_ratios, double count) {
  reference_point_ = count > 0 ? std::max(0.0, log_ratios / count) : 0;
}

double KtoLoss::evaluate(std::span<const Answer> answers, std::span<double> slopes) const {
  double loss = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const double sign = answers[i].liked ? 1 : -1;
    const double weight = answers[i].liked ? options_.desirable_weight : options_.undesirable_weight;
    const double u = sign * options_.beta * (answers[i].log_ratio() - reference_point_);
    loss += weight * sigmoid(-u);
    slopes[i] = -sign * weight * options_.beta * sigmoid(u) * sigmoid(-u);
  }
  return loss;
}

Terms KtoLoss::terms(std::span<const Answer> step) const {
  double rewards[2] = {}, counts[2] = {};
  for (const Answer& answer : step) {
    rewards[answer.liked ? 1 : 0] += options_.beta * answer.log_ratio();
    counts[answer.liked ? 1 : 0] += 1;
  }
  const double liked = rewards[1] / std::max(1.0, counts[1]),
               disliked = rewards[0] / std::max(1.0, counts[0]);
  return {{"kl", reference_point_},
          {"liked_reward", liked},
          {"disliked_reward", disliked},
          {"reward_margin", liked - disliked},
          {"liked_share", counts[1] / std::max(1.0, counts[0] + counts[1])},
          {"log_prob", mean_of(step, [](const Answer& y) { return y.average(); })}};
}

std::vector<std::int64_t> mismatched_records(std::span<const std::int64_t> prompts, KtoPairing pairing) {
  const std::int64_t count = std::ssize(prompts);
  std::vector<std::int64_t> sources;
  if (count < 2) return sources;
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t source = (i + count - 1) % count;
    if (pairing == KtoPairing::previous_other_prompt) {
      const auto differs = [&](std::int64_t other) {
        return prompts[static_cast<std::size_t>(other)] != prompts[static_cast<std::size_t>(i)];
      };
      for (std::int64_t back = 1; back < count; ++back) {
        const std::int64_t other = (i + count - back) % count;
        if (!differs(other)) continue;
        source = other;
        break;
      }
    }
    sources.push_back(source);
  }
  return sources;
}

}  // namespace bireme
