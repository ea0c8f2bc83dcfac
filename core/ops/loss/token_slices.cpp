#include "core/ops/loss/token_slices.h"

#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

void RowStatistics::combine(const Backend& backend, const ReduceOverColumns& reduce) const {
  if (!reduce) return;
  const Tensor own = clone(backend.memory(), maxima);
  reduce(maxima, RowReduction::max);
  backend.loss().token_rebase(
      {.own = own, .maxima = maxima, .sums = sums.slice(0, rows()), .argmax = argmax});
  reduce(sums, RowReduction::sum);
  if (!argmax) return;
  reduce(argmax, RowReduction::max);
  backend.pointwise().scale({.x = argmax, .factor = -1, .to = {argmax, false}});
}

}  // namespace bireme
