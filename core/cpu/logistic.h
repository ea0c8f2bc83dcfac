#pragma once

#include <algorithm>
#include <cmath>

namespace bireme::cpu {

/// log σ(x) = min(x, 0) - log(1 + exp(-|x|)): neither end over- or underflows.
template <class F>
F log_sigmoid(F x) {
  return std::min(x, F{0}) - std::log1p(std::exp(-std::abs(x)));
}

/// σ(x) = 1 / (1 + exp(-x)), by the exponential that cannot overflow.
template <class F>
F sigmoid(F x) {
  const F e = std::exp(-std::abs(x));
  return (x < 0 ? e : F{1}) / (1 + e);
}

}  // namespace bireme::cpu
