#include "launch/job.h"

#include <omp.h>
#include <spdlog/fmt/fmt.h>

#include <cstdio>

#include "core/base/log.h"
#include "core/cpu/cpu_backend.h"
#include "core/cuda/cuda_backend.h"
#include "distributed/failure.h"
#include "distributed/nccl/nccl_communicator.h"
#include "distributed/placement.h"

namespace bireme {

namespace {

void report(const Error& error) { fmt::print(stderr, "bireme: error: {}\n", error.what()); }

std::unique_ptr<Backend> make_backend(const Configuration& configuration, const Communicator& world) {
  if (configuration.run.device == "cuda") {
    const Placement place = world.placement();
    return cuda::make_backend({.local_rank = place.local_rank,
                               .local_size = place.local_size,
                               .graphs = configuration.run.cuda_graphs});
  }
  std::unique_ptr<Backend> backend = make_cpu_backend(make_host_memory());
  if (configuration.precision.type == "bf16" && !backend->has_fast_bf16()) {
    throw Error(ErrorKind::no_device, "this CPU has no bf16 instructions (AVX512-BF16 or AMX)",
                "precision.type is bf16",
                "use --precision.type fp32, or another machine; `bireme doctor` shows what this one has");
  }
  return backend;
}

}  // namespace

int run_job(const std::function<int(Communicator& world)>& body) {
  const std::unique_ptr<Communicator> world = connect();
  try {
    return body(*world);
  } catch (const Error& error) {
    if (world->size() == 1) throw;
    if (claim_report(world.get())) report(error);
    abort_all(world.get(), error);
  }
}

Context make_context(const Configuration& configuration, Communicator& world) {
  Context context;
  context.backend = make_backend(configuration, world);
  context.threads =
      configuration.run.threads > 0 ? static_cast<int>(configuration.run.threads) : default_threads(world);
  omp_set_num_threads(context.threads);
  if (const auto warning = affinity_warning(world); warning && configuration.run.threads == 0)
    log_warning("{}", *warning);
  if (configuration.run.device == "cuda" && world.size() > 1) {
    context.gpu_ranks = make_nccl(world, context.backend->memory());
    if (context.gpu_ranks == nullptr)
      throw Error(ErrorKind::no_device, "this binary was built without NCCL, by which GPUs exchange",
                  fmt::format("{} ranks with run.device cuda", world.size()),
                  "build it where NCCL is installed, or start a single rank");
  }
  context.mesh = std::make_unique<Mesh>(context.gpu_ranks != nullptr ? *context.gpu_ranks : world,
                                        static_cast<int>(configuration.parallel.tensor));
  context.type = configuration.precision.type == "bf16" ? DType::bf16 : DType::f32;
  if (world.size() > 1 && configuration.run.timeout_seconds > 0) {
    context.watchdog = std::make_unique<Watchdog>(
        world, WatchdogOptions{.timeout_seconds = configuration.run.timeout_seconds, .report = report});
    if (context.gpu_ranks != nullptr) context.watchdog->watch(*context.gpu_ranks);
    context.watchdog->watch(context.mesh->data());
    context.watchdog->watch(context.mesh->tensor());
  }
  return context;
}

}  // namespace bireme
