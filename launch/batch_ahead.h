#pragma once

#include <functional>
#include <optional>
#include <utility>

#include "core/data/batch.h"

namespace bireme {

/// A training's micro-batches, of which the next can be brought to a GPU while that still works at the one
/// before.
class BatchAhead {
 public:
  /// @param next   yields the batches in their order; where it fails, it fails alike when called again
  /// @param bring  Objective::bring()
  BatchAhead(std::function<Batch()> next, std::function<Batch(Batch)> bring)
      : next_(std::move(next)), bring_(std::move(bring)) {}

  Batch next() {
    std::optional<Batch> ahead = std::exchange(ahead_, std::nullopt);
    return ahead ? std::move(*ahead) : next_();
  }

  /// Brings what next() will give. @throws what bringing throws
  void bring() {
    std::optional<Batch> batch;
    try {
      batch = next();
    } catch (...) {  // concerns the step after this one, for which next() throws it again
      return;
    }
    ahead_ = bring_(std::move(*batch));
  }

 private:
  std::function<Batch()> next_;
  std::function<Batch(Batch)> bring_;
  std::optional<Batch> ahead_;
};

}  // namespace bireme
