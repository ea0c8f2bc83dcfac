#pragma once

#include <algorithm>

#include "core/ops/loss/loss_kernels.h"
#include "core/ops/loss/token_loss.h"

namespace bireme {

// Logits that exist at a time. Enough rows for products at full speed (a slice of W's gradient is read and
// written once for each), few enough to stay in a shared cache for vocabularies of a few thousand.
inline constexpr std::int64_t kSliceBytes = std::int64_t{64} << 20;
inline constexpr std::int64_t kFewestRows = 64, kMostRows = 512;

inline std::int64_t slice_rows(std::int64_t rows, std::int64_t vocabulary) {
  const std::int64_t fitting = kSliceBytes / (4 * std::max<std::int64_t>(1, vocabulary));
  return std::min(rows, std::clamp(fitting, kFewestRows, kMostRows));
}

/// The statistics of a slice's rows over the whole vocabulary, fp64.
struct RowStatistics {
  Tensor maxima, argmax, sums, target_logits, log_sums;

  RowStatistics(Memory& memory, std::int64_t rows, bool needs_argmax)
      : maxima(memory, {rows}, DType::f64),
        argmax(needs_argmax ? Tensor(memory, {rows}, DType::f64) : Tensor()),
        sums(memory, {2 * rows}, DType::f64),
        target_logits(sums.slice(rows, 2 * rows)),
        log_sums(memory, {rows}, DType::f64) {}

  std::int64_t rows() const { return maxima.elements(); }

  /// From those of this rank's columns. Sums are of exp(logit - the rank's maximum) before, of exp(logit -
  /// the maximum of all) after.
  void combine(const Backend& backend, const ReduceOverColumns& reduce) const;
};

}  // namespace bireme
