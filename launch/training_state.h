#pragma once

#include <filesystem>
#include <string>

#include "core/optimizer/adamw.h"
#include "launch/job.h"
#include "launch/training_task.h"

namespace bireme {

/// Everything that a step changes, as a checkpoint holds it: the task's model as a published folder, and
/// beside it the task's other state, moments and counters.
struct TrainingState {
  const Context& context;
  TrainingTask& task;
  AdamWOptimizer& optimizer;
  std::string configuration;            ///< the run's, as TOML
  AdamWOptimizer* companion = nullptr;  ///< of the objective's companion, where it has one
};

/// The model alone, as it opens in other programs. Collective.
std::filesystem::path save_model(const TrainingState& state, const std::filesystem::path& folder,
                                 std::int64_t step);
/// The whole state after `step` steps. Collective.
std::filesystem::path save_training_state(const TrainingState& state, const std::filesystem::path& folder,
                                          std::int64_t step);
/// Restores it, whatever the layout over ranks that wrote it. Returns the number of steps done. Collective.
/// @throws Error (checkpoint) for missing, extra or misshapen tensors, and for a state of another dataset
std::int64_t load_training_state(const TrainingState& state, const std::filesystem::path& checkpoint);

}  // namespace bireme
