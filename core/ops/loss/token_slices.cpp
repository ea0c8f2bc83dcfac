#include "core/ops/loss/token_slices.h"

#include <cmath>
#include <limits>

namespace bireme {

void RowStatistics::combine(const ReduceOverColumns& reduce) const {
  if (reduce) {
    const std::vector<double> mine(maxima.values<double>().begin(), maxima.values<double>().end());
    reduce(maxima, RowReduction::max);
    for (std::int64_t r = 0; r < rows(); ++r) {
      const double largest = maxima.data<double>()[r], own = mine[static_cast<std::size_t>(r)];
      sums.data<double>()[r] *= std::exp(own - largest);
      if (!argmax) continue;
      // The first of equal maxima is the largest of the negated positions.
      double& position = argmax.data<double>()[r];
      position = own == largest ? -position : -std::numeric_limits<double>::max();
    }
    reduce(sums, RowReduction::sum);
    if (argmax) {
      reduce(argmax, RowReduction::max);
      for (double& position : argmax.values<double>()) position = -position;
    }
  }
  for (std::int64_t r = 0; r < rows(); ++r)
    log_sums.data<double>()[r] = maxima.data<double>()[r] + std::log(sums.data<double>()[r]);
}

}  // namespace bireme
