#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/data/loader.h"
#include "launch/commands/bench.h"
#include "launch/matrix_peak.h"
#include "launch/options.h"
#include "launch/trainer.h"
#include "launch/training_task.h"

namespace bireme {

namespace {

struct StepTimes {
  double median = 0, fastest = 0, slowest = 0;  // seconds
};

/// Steps on one made-up batch, after two that fill caches and buffers.
StepTimes time_steps(Trainer& trainer, const TrainingTask& task, std::int64_t count) {
  using Clock = std::chrono::steady_clock;
  Batch batch = task.made_up_batch();
  constexpr std::int64_t warmup = 2;
  constexpr std::int64_t place = 1;  // in a run: the first step measures more than nearly all others do
  std::vector<double> times;
  for (std::int64_t step = 0; step < warmup + count; ++step) {
    const auto began = Clock::now();
    trainer.step(place, [&] { return batch; });
    if (step >= warmup) times.push_back(std::chrono::duration<double>(Clock::now() - began).count());
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

}  // namespace

int run_bench_step(Arguments arguments) {
  Options options(
      "bireme bench step",
      "times whole training steps on made-up data: forward, backward, sums over ranks, optimiser");
  options.value("config", "FILE", "configuration of the training; without it, the default one")
      .value("steps", "N", "steps to time, after two to warm up", "10")
      .configuration(configuration_keys())
      .example("bireme bench step --config configs/vit_tiny_32.toml --data.batch_size 32")
      .example(
          "mpirun -n 2 bireme bench step --config configs/vit_tiny_32.toml --precision.type bf16 --json");
  if (!options.parse(arguments)) return 0;
  const std::filesystem::path file = options.has("config") ? options.path("config") : std::filesystem::path();
  const Configuration configuration = load_configuration(file, options.overrides());
  const std::int64_t count = options.integer("steps", 1, 100000);
  return run_job([&](Communicator& world) {
    const Context context = make_context(configuration, world);
    const Communicator& data = context.mesh->data();
    require_divisible_batch(configuration.data.batch_size,
                            static_cast<int>(configuration.parallel.accumulate), data.size());
    const std::unique_ptr<TrainingTask> task = make_training_task(configuration, context, TaskData::made_up);
    Trainer trainer(configuration, context, task->objective(), task->steps());
    Memory& memory = context.backend->memory();
    const double peak = measure_matrix_peak(context.type, *context.backend, world);
    const StepTimes times = time_steps(trainer, *task, count);
    if (world.rank() != 0) return 0;
    const double rate = static_cast<double>(task->units_per_step()) / times.median;
    const double operations = task->objective().flops(task->made_up_batch()) *
                              static_cast<double>(configuration.parallel.accumulate * data.size());
    const double flops = operations / times.median;
    const std::string unit = fmt::format("{}_per_second", task->unit());
    if (options.json()) {
      const nlohmann::ordered_json result = {{"ranks", world.size()},
                                             {"threads", context.threads},
                                             {"seconds", times.median},
                                             {"fastest_seconds", times.fastest},
                                             {"slowest_seconds", times.slowest},
                                             {unit, rate},
                                             {"gflops", flops / 1e9},
                                             {"peak_gflops", peak / 1e9},
                                             {"fraction_of_peak", flops / peak},
                                             {"peak_bytes", memory.statistics().peak}};
      fmt::print("{}\n", json_text(result));
      return 0;
    }
    fmt::print("{} ranks of {} threads, {} steps: median {:.4f} s ({:.4f} to {:.4f}), {:.1f} {}/s\n",
               world.size(), context.threads, count, times.median, times.fastest, times.slowest, rate,
               task->unit());
    fmt::print("{:.1f} GFLOP/s, {:.0f} % of the {:.1f} that matrix products reach here; {:.0f} MiB a rank\n",
               flops / 1e9, 100 * flops / peak, peak / 1e9,
               static_cast<double>(memory.statistics().peak) / (1 << 20));
    return 0;
  });
}

}  // namespace bireme
