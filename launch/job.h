#pragma once

#include <functional>
#include <memory>

#include "core/ops/backend.h"
#include "distributed/communicator.h"
#include "distributed/mesh.h"
#include "distributed/watchdog.h"
#include "launch/configuration.h"

namespace bireme {

/// Runs `body` on the ranks that the launcher started (or the single process). An Error that one rank meets
/// is reported once, and ends all of them within seconds with its exit code.
int run_job(const std::function<int(Communicator& world)>& body);

/// What a run shares: its device, its threads, its grid of ranks and what watches over them.
struct Context {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Communicator> gpu_ranks;  ///< the job's ranks over NCCL; null where there is none
  std::unique_ptr<Mesh> mesh;
  std::unique_ptr<Watchdog> watchdog;
  int threads = 1;
  DType type = DType::f32;  ///< compute type
};

/// Collective.
/// @throws Error (no_device) when the device or its bf16 instructions are missing, (usage) when the tensor
/// degree does not
///         divide the ranks
Context make_context(const Configuration& configuration, Communicator& world);

}  // namespace bireme
