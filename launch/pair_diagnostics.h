#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "objectives/preference/answer.h"

namespace bireme {

/// RUN/diagnostics.h5: pairs of some steps of a run, from which the coefficients of ORPO's gradient follow.
/// Lists of one entry a pair: `step` (i64), `chosen_average`, `rejected_average`, `chosen_tokens`,
/// `rejected_tokens`, `delta` (f64).
class PairDiagnostics {
 public:
  /// At most 2048 pairs of a step, the chosen answer of each first; the file is written anew. What it holds
  /// of this and later steps, from before a run was resumed, is forgotten.
  void write(const std::filesystem::path& run, std::int64_t step, std::span<const Answer> pairs,
             const std::vector<double>& delta);

 private:
  void read(const std::filesystem::path& file, std::int64_t before);

  bool is_read_ = false;
  std::vector<std::int64_t> steps_;
  std::vector<double> columns_[5];
};

}  // namespace bireme
