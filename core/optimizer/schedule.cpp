#include "core/optimizer/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace bireme {

double cosine_between(double start, double end, std::int64_t it, std::int64_t total) {
  const double share = static_cast<double>(it) / static_cast<double>(total);
  return end + 0.5 * (start - end) * (1 + std::cos(std::numbers::pi * share));
}

double ramp(double start, double end, std::int64_t i, std::int64_t warmup) {
  if (i >= warmup) return end;
  return warmup == 1 ? start
                     : start + (end - start) * static_cast<double>(i) / static_cast<double>(warmup - 1);
}

double LearningRateSchedule::exponential_at(std::int64_t it) const {
  const double x = std::clamp(
      static_cast<double>(it - warmup + 1) / static_cast<double>(std::max<std::int64_t>(1, total - warmup)),
      0.0, 1.0);
  const double rate =
      base == 0 || minimum == 0 ? base + (minimum - base) * x : base * std::pow(minimum / base, x);
  return it < warmup ? rate * (0.2 + 0.8 * static_cast<double>(it) / static_cast<double>(warmup)) : rate;
}

double LearningRateSchedule::at(std::int64_t it) const {
  if (shape == Shape::exponential) return exponential_at(it);
  if (it < warmup) return warmup == 1 ? 0 : base * static_cast<double>(it) / static_cast<double>(warmup - 1);
  switch (shape) {
    case Shape::cosine: return cosine_between(base, minimum, it - warmup, total - warmup);
    case Shape::linear:
      return base + (minimum - base) * static_cast<double>(it - warmup) / static_cast<double>(total - warmup);
    case Shape::constant:
    case Shape::exponential: break;
  }
  return base;
}

}  // namespace bireme
