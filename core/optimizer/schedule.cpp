#include "core/optimizer/schedule.h"

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

double LearningRateSchedule::at(std::int64_t it) const {
  if (it < warmup) return warmup == 1 ? 0 : base * static_cast<double>(it) / static_cast<double>(warmup - 1);
  switch (shape) {
    case Shape::cosine: return cosine_between(base, minimum, it - warmup, total - warmup);
    case Shape::linear:
      return base + (minimum - base) * static_cast<double>(it - warmup) / static_cast<double>(total - warmup);
    case Shape::constant: break;
  }
  return base;
}

}  // namespace bireme
