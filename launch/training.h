#pragma once

#include <filesystem>

#include "distributed/communicator.h"
#include "launch/configuration.h"

namespace bireme {

/// `bireme train`: the run folder, the loop, checkpoints, evaluation, signals.
struct TrainRequest {
  Configuration configuration;
  std::filesystem::path run;
  bool resume = false;
};
/// @return the exit code
int train(const TrainRequest& request, Communicator& world);

/// `bireme train --dry-run`: one step on made-up data, and the memory that it took.
int dry_run(const Configuration& configuration, Communicator& world);

}  // namespace bireme
