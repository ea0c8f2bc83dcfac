#include "launch/training.h"

#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <optional>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/log.h"
#include "core/cuda/devices.h"
#include "core/data/loader.h"
#include "distributed/checkpoint_reader.h"
#include "distributed/signals.h"
#include "launch/batch_ahead.h"
#include "launch/log.h"
#include "launch/matrix_peak.h"
#include "launch/metrics.h"
#include "launch/numbers.h"
#include "launch/progress.h"
#include "launch/run_folder.h"
#include "launch/trainer.h"
#include "launch/training_state.h"

namespace bireme {

namespace {

constexpr std::int64_t kFewLaunches = 20;  // of CUDA graphs, which say nothing yet of those to come

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The numbers of a batch's first record, for messages.
std::int64_t first_record(const Batch& batch) {
  return std::visit([](const auto& b) { return b.records.empty() ? std::int64_t{-1} : b.records.front(); },
                    batch);
}

/// One run: what `train` does, in order.
class Training {
 public:
  Training(const TrainRequest& request, Communicator& world)
      : configuration_(request.configuration),
        world_(world),
        context_(make_context(configuration_, world)),
        task_((require_shares(), make_training_task(configuration_, context_, TaskData::real))),
        trainer_(configuration_, context_, task_->objective(), task_->steps()),
        state_{context_, *task_, trainer_.optimizer(), to_toml(configuration_),
               trainer_.companion_optimizer()},
        folder_(request.run, configuration_, request.resume, world) {
    open_log({.folder = folder_.path(), .rank = world.rank()});
    if (world.rank() == 0) warn();
    task_->enter(folder_.path());
    start_ = request.resume ? resume() : std::nullopt;
    if (configuration_.run.profile) trainer_.measure(profile_);
  }

  int run() {
    const SignalFlag signals;  // before the long work: a signal in the first evaluation counts as well
    if (!start_) save_model(state_, folder_.untrained(), 0);
    const std::int64_t start = start_.value_or(0), steps = task_->steps();
    if (world_.rank() == 0) metrics_.emplace(folder_.path(), start);
    if (task_->evaluates() && start == 0) {
      evaluate(true);
      write_metrics(0);
    }
    peak_ = measure_matrix_peak(context_.type, *context_.backend, world_);
    task_->start(start);
    Progress progress(terminal_progress("step", steps, start, world_.rank()));
    saved_at_ = start;
    BatchAhead batches([this] { return task_->next(); },
                       [this](Batch batch) { return task_->objective().bring(std::move(batch)); });
    const bool on_gpu = context_.backend->memory().device().type == DeviceType::cuda;
    for (std::int64_t step = start; step < steps; ++step) {
      const double began = seconds_now();
      Batch last;
      const auto next = [&] { return last = batches.next(); };
      const auto meanwhile = [&] {
        if (on_gpu && step + 1 < steps) batches.bring();
      };
      const StepReport report = trainer_.step(step, next, meanwhile);
      if (report.skipped) {
        skip(step, last);
        continue;
      }
      skipped_ = 0;
      if (configuration_.run.profile) profile_.end_step(seconds_now() - began);
      if (world_.rank() == 0) task_->record(folder_.path(), step + 1);
      note(progress, step + 1, report, last, seconds_now() - began);
      if (configuration_.run.checkpoint_every > 0 && (step + 1) % configuration_.run.checkpoint_every == 0)
        save(step + 1);
      if (world_.all_reduce_value(signals.is_raised() ? 1 : 0, Reduce::max) > 0) {
        save(step + 1);
        if (world_.rank() == 0) log_info("stopped by a signal after step {}; go on with --resume", step + 1);
        return 0;
      }
    }
    save(steps);
    write_profile();
    log_captures();
    if (world_.rank() == 0) log_info("done: {} steps, {}", steps, folder_.path().string());
    return 0;
  }

 private:
  void warn() const {
    for (const std::string& warning : configuration_warnings(configuration_)) log_warning("{}", warning);
    if (configuration_.run.device == "auto" && cuda::find_devices().count > 0)
      log_warning("a GPU is here, but run.device \"auto\" takes the CPU: --run.device cuda takes the GPU");
  }

  void require_shares() const {
    require_divisible_batch(configuration_.data.batch_size,
                            static_cast<int>(configuration_.parallel.accumulate),
                            context_.mesh->data().size());
  }

  /// Loads the newest checkpoint, if there is one. Returns the steps done.
  std::optional<std::int64_t> resume() {
    const auto latest = find_latest_checkpoint(folder_.checkpoints(), world_);
    if (!latest) return std::nullopt;
    for (const std::string& warning : latest->warnings)
      if (world_.rank() == 0) log_warning("{}", warning);
    const std::int64_t step = load_training_state(state_, latest->folder);
    if (world_.rank() == 0) log_info("resumed after step {} from {}", step, latest->folder.string());
    return step;
  }

  void set_metric(std::string_view name, double value) {
    if (metrics_) metrics_->set(name, value);
  }
  void write_metrics(std::int64_t step) {
    if (metrics_) metrics_->write(step);
  }

  void evaluate(bool is_first, std::int64_t step = 0) {
    const TrainingEvaluation found = task_->evaluate(is_first);  // collective
    for (const auto& [name, value] : found.numbers) set_metric(name, value);
    if (world_.rank() != 0) return;
    log_info("{}{}", is_first ? "" : fmt::format("step {}: ", step), found.message);
    if (found.details.empty()) return;
    std::filesystem::create_directories(folder_.evaluation());
    write_file_atomically(folder_.evaluation() / fmt::format("step-{:08}.json", step), found.details);
  }

  void skip(std::int64_t step, const Batch& batch) {
    ++skipped_;
    if (world_.rank() == 0)
      log_warning("step {}: loss or gradient is not finite; the step is not applied (first record {})",
                  step + 1, first_record(batch));
    if (skipped_ <= configuration_.run.max_skipped_steps) return;
    throw Error(ErrorKind::not_finite,
                fmt::format("loss or gradient was not finite in {} steps in a row, the last is step {}",
                            skipped_, step + 1),
                folder_.path().string(),
                "lower optimizer.learning_rate or use --precision.type fp32; the last good checkpoint is "
                "kept: go on with --resume");
  }

  void note(Progress& progress, std::int64_t done, const StepReport& report, const Batch& batch,
            double seconds) {
    window_seconds_ += seconds;
    ++window_steps_;
    const bool is_last = done == task_->steps();
    const bool evaluates = task_->evaluates() && (done % configuration_.run.evaluate_every == 0 || is_last);
    const bool logs = done % configuration_.run.log_every == 0 || is_last;
    const double rate = static_cast<double>(task_->units_per_step() * window_steps_) / window_seconds_;
    progress.update(done,
                    fmt::format("loss {:.4f}  {} {}/s", report.loss, short_number(rate), task_->unit()));
    if (!logs && !evaluates) return;
    set_metric("loss", report.loss);
    set_metric("learning_rate", report.learning_rate);
    set_metric("grad_norm", report.gradient_norm);
    set_metric(fmt::format("{}_per_second", task_->unit()), rate);
    const double flops = task_->objective().flops(batch) *
                         static_cast<double>(configuration_.parallel.accumulate * window_steps_) *
                         context_.mesh->data().size() / window_seconds_;
    set_metric("gflops_per_second", flops * 1e-9);
    set_metric("mfu", flops / peak_);
    set_metric("seconds", window_seconds_ / static_cast<double>(window_steps_));
    set_metric("data_wait_seconds", task_->wait_seconds());
    if (const auto captures = context_.backend->captures()) {
      set_metric("graph_launches", static_cast<double>(captures->launches));
      set_metric("graph_instantiations", static_cast<double>(captures->instantiations));
    }
    for (const auto& [name, value] : task_->objective().terms()) set_metric(name, value);  // collective
    if (evaluates) evaluate(false, done);
    write_metrics(done);
    if (const std::string warning = task_->objective().warning(); !warning.empty() && world_.rank() == 0)
      log_warning("{}", warning);
    window_seconds_ = 0;
    window_steps_ = 0;
  }

  void log_captures() const {
    const std::optional<CaptureStatistics> captures = context_.backend->captures();
    if (!captures || world_.rank() != 0) return;
    log_info("CUDA graphs: {} launches, {} instantiations", captures->launches, captures->instantiations);
    if (captures->launches > kFewLaunches && 2 * captures->instantiations > captures->launches)
      log_warning(
          "most CUDA graphs had other kernels than in the step before, and were instantiated anew, "
          "which costs more than it saves: leave out run.cuda_graphs");
  }

  void write_profile() const {
    if (!configuration_.run.profile || world_.rank() != 0) return;
    log_info("where the time of a step goes\n{}", profile_.table());
    write_file_atomically(folder_.path() / "profile.json", profile_.json());
  }

  void save(std::int64_t step) {
    if (saved_at_ == step) return;
    save_training_state(state_, folder_.checkpoints(), step);
    saved_at_ = step;
    if (world_.rank() == 0)
      prune_checkpoints(folder_.checkpoints(), static_cast<int>(configuration_.run.keep_checkpoints));
    world_.barrier();
  }

  const Configuration& configuration_;
  Communicator& world_;
  Context context_;
  std::unique_ptr<TrainingTask> task_;
  Trainer trainer_;
  TrainingState state_;
  RunFolder folder_;
  std::optional<Metrics> metrics_;  // on rank 0
  std::optional<std::int64_t> start_;
  std::int64_t saved_at_ = -1, skipped_ = 0, window_steps_ = 0;
  double window_seconds_ = 0;
  Profile profile_;
  double peak_ = 0;  // operations a second of matrix products, all ranks together
};

}  // namespace

int train(const TrainRequest& request, Communicator& world) {
  if (request.configuration.data.path.empty())
    throw Error(ErrorKind::usage, "no training data is given", "data.path",
                "make a dataset with `bireme prepare` and pass --data.path DATASET");
  open_log({.folder = {}, .rank = world.rank()});  // until the run's folder stands
  return Training(request, world).run();
}

int dry_run(const Configuration& configuration, Communicator& world) {
  const Context context = make_context(configuration, world);
  require_divisible_batch(configuration.data.batch_size, static_cast<int>(configuration.parallel.accumulate),
                          context.mesh->data().size());
  const std::unique_ptr<TrainingTask> task = make_training_task(configuration, context, TaskData::made_up);
  Trainer trainer(configuration, context, task->objective(), task->steps());
  const std::size_t fixed = context.backend->memory().statistics().in_use;
  Batch batch = task->made_up_batch();
  const double began = seconds_now();
  const StepReport report = trainer.step(0, [&] { return batch; });
  const double seconds = seconds_now() - began;
  if (world.rank() != 0) return 0;
  const auto mib = [](std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  const std::size_t peak = context.backend->memory().statistics().peak;
  const auto parameters = static_cast<double>(task->objective().parameters().elements());
  fmt::print("{}\n# trained parameters of each rank   {}\n", to_toml(configuration),
             short_number(parameters));
  fmt::print("# memory of each rank: {:.0f} MiB for weights, gradients and moments, {:.0f} MiB for a step\n",
             mib(fixed), mib(peak - std::min(peak, fixed)));
  fmt::print("# one step on made-up data: loss {:.4f}, {:.2f} s, {:.1f} {}/s\n", report.loss, seconds,
             static_cast<double>(task->units_per_step()) / seconds, task->unit());
  return 0;
}

}  // namespace bireme
