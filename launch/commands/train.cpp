#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "launch/job.h"
#include "launch/options.h"
#include "launch/run_folder.h"
#include "launch/training.h"

namespace bireme {

namespace {

/// A run that goes on keeps its own configuration; one that was stopped before its first step begins anew, so
/// that a job which a scheduler starts again can always say --resume.
Configuration requested_configuration(const Options& options) {
  if (options.has("config")) return load_configuration(options.path("config"), options.overrides());
  if (options.flag("resume") && options.has("run") && RunFolder::holds_run(options.path("run")))
    return run_configuration(options.path("run"), options.overrides());
  return load_configuration({}, options.overrides());
}

}  // namespace

int run_train(Arguments arguments) {
  Options options("bireme train", "trains a model; under mpirun or srun, over all ranks");
  options
      .value("config", "FILE",
             "configuration in TOML; without it, a small vision transformer for Fashion-MNIST")
      .value("run", "DIR", "folder for checkpoints, metrics and logs")
      .flag("resume", "go on from the newest whole checkpoint of the run")
      .flag("dry-run",
            "print the configuration and the memory that each rank needs, run one step on made-up data, and "
            "stop")
      .flag("print-config", "print the resolved configuration and stop")
      .flag("help-config", "explain every configuration key and stop")
      .configuration(configuration_keys())
      .example("bireme train --config configs/fashion_mnist.toml --data.path fashion-train --run runs/first")
      .example(
          "mpirun -n 2 bireme train --config configs/cifar.toml --data.path cifar --run runs/cifar --resume");
  if (!options.parse(arguments)) return 0;
  if (options.flag("help-config")) {
    fmt::print("{}", configuration_reference());
    return 0;
  }
  const Configuration configuration = requested_configuration(options);
  if (options.flag("print-config")) {
    fmt::print("{}", to_toml(configuration));
    return 0;
  }
  if (options.flag("dry-run"))
    return run_job([&](Communicator& world) { return dry_run(configuration, world); });
  if (!options.has("run"))
    throw Error(ErrorKind::usage, "no run folder is given", "bireme train",
                "pass --run DIR, a folder that does not exist yet");
  const TrainRequest request{
      .configuration = configuration, .run = options.path("run"), .resume = options.flag("resume")};
  return run_job([&](Communicator& world) { return train(request, world); });
}

}  // namespace bireme
