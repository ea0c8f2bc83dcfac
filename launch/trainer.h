#pragma once

#include <functional>

#include "core/base/profile.h"
#include "core/optimizer/adamw.h"
#include "core/optimizer/schedule.h"
#include "distributed/gradient_sync.h"
#include "launch/job.h"
#include "objectives/objective.h"

namespace bireme {

/// What one optimiser step did.
struct StepReport {
  double loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  bool skipped = false;  ///< loss or gradient was not finite: nothing moved
};

/// The optimiser step on this rank, whatever the objective: forward, backward with the sums over ranks under
/// way, clipping, AdamW. Knows nothing of folders and terminals.
class Trainer {
 public:
  /// @param steps  of the whole run, which the schedules span
  Trainer(const Configuration& configuration, const Context& context, Objective& objective,
          std::int64_t steps);

  /// Times operations from now on. @param profile  outlives the trainer
  void measure(Profile& profile) { profile_ = &profile; }
  /// `next` yields the step's micro-batches. Collective.
  StepReport step(std::int64_t step, const std::function<Batch()>& next);

  AdamWOptimizer& optimizer() { return optimizer_; }

 private:
  void gather_values();
  /// Runs work that is no operation of a tape, timed where times are wanted.
  template <class Work>
  decltype(auto) timed(const char* name, Work&& work) {
    return profile_ != nullptr ? profile_->measure(name, work) : work();
  }

  const Configuration& configuration_;
  const Context& context_;
  Objective& objective_;
  std::int64_t steps_;
  LearningRateSchedule learning_rate_;
  AdamWOptimizer optimizer_;
  GradientSync sync_;
  Profile* profile_ = nullptr;
};

}  // namespace bireme
