#pragma once

#include <functional>
#include <optional>

#include "core/base/profile.h"
#include "core/optimizer/adamw.h"
#include "core/optimizer/clip.h"
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
  /// `next` yields the step's micro-batches; `meanwhile` is called when all passes are queued, before
  /// anything waits for them: a GPU has work then, and the host has time. Collective.
  StepReport step(
      std::int64_t step, const std::function<Batch()>& next, const std::function<void()>& meanwhile = [] {});

  AdamWOptimizer& optimizer() { return model_.optimizer; }
  /// Of the objective's companion, where it has one, otherwise null.
  AdamWOptimizer* companion_optimizer() { return companion_ ? &companion_->optimizer : nullptr; }

 private:
  /// Parameters with what moves them.
  struct Network {
    ParameterSet& parameters;
    AdamWOptimizer optimizer;
    GradientSync sync;
  };
  /// The loss of a micro-batch and its way back, until gradients are summed over ranks where it is the last.
  void learn(const Batch& batch, bool is_last);
  Network make_network(ParameterSet& parameters) const;
  ClippedGradients clip(const Network& network) const;
  void move(Network& network, double learning_rate, std::int64_t step, const ClippedGradients& clipped);
  void gather_values(ParameterSet& parameters);
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
  Network model_;
  std::optional<Network> companion_;
  Profile* profile_ = nullptr;
};

}  // namespace bireme
