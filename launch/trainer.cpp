#include "launch/trainer.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cmath>
#include <cstdio>

#include "core/base/error.h"
#include "distributed/checkpoint_reader.h"
#include "distributed/signals.h"
#include "launch/log.h"
#include "launch/numbers.h"
#include "launch/progress.h"
#include "launch/run_folder.h"
#include "launch/vision_features.h"

namespace bireme {

namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// k-NN during training: the only measure of what has been learnt, since the loss moves with the teacher.
class NearestNeighborWatch {
 public:
  NearestNeighborWatch(const Configuration& configuration, const Context& context,
                       const PublishedVisionTransformer& published)
      : context_(context) {
    const auto& d = configuration.data;
    if (configuration.run.evaluate_every <= 0 || d.evaluation_train.empty() || d.evaluation_test.empty())
      return;
    const int size = published.options.image_size, channels = published.options.channels;
    train_.emplace(Dataset::open(d.evaluation_train), size, channels, published.mean, published.deviation);
    test_.emplace(Dataset::open(d.evaluation_test), size, channels, published.mean, published.deviation);
  }

  bool is_on() const { return train_.has_value(); }
  double accuracy(const VisionTransformer& model) const {
    Communicator& data = context_.mesh->data();
    return score(class_token_features(*context_.backend, data, model, *train_, context_.type),
                 class_token_features(*context_.backend, data, model, *test_, context_.type));
  }
  double pixel_accuracy() const {
    return score(pixel_features(*context_.backend, *train_), pixel_features(*context_.backend, *test_));
  }

 private:
  static constexpr int kNeighbors = 20;  // usually the best of the paper's 10, 20, 100, 200
  double score(const LabeledFeatures& train, const LabeledFeatures& test) const {
    return evaluate_knn(*context_.backend, context_.mesh->data(), train, test, {.neighbors = {kNeighbors}})[0]
        .top1;
  }

  const Context& context_;
  std::optional<EvaluationPictures> train_, test_;
};

/// One run: what `train` does, in order.
class Training {
 public:
  Training(const TrainRequest& request, Communicator& world)
      : request_(request),
        configuration_(request.configuration),
        world_(world),
        context_(make_context(configuration_, world)),
        dataset_(open_dataset(configuration_)),
        crops_(multi_crop_options(configuration_, dataset_)),
        sampler_({.records = dataset_.records(),
                  .batch_size = configuration_.data.batch_size,
                  .seed = static_cast<std::uint64_t>(configuration_.run.seed),
                  .shuffled = configuration_.data.order == "shuffled"}),
        steps_(configuration_.run.epochs > 0 ? configuration_.run.epochs * sampler_.iterations_per_epoch()
                                             : configuration_.run.steps),
        trainer_(configuration_, context_, {crops_.mean.begin(), crops_.mean.end()},
                 {crops_.std.begin(), crops_.std.end()}, steps_),
        state_{.backend = *context_.backend,
               .world = world,
               .mesh = *context_.mesh,
               .objective = trainer_.objective(),
               .optimizer = trainer_.optimizer(),
               .published = trainer_.published(),
               .configuration = to_toml(configuration_),
               .dataset = dataset_.fingerprint()},
        watch_(configuration_, context_, trainer_.published()),
        folder_(request.run, checked(), request.resume, world) {
    open_log({.folder = folder_.path(), .rank = world.rank()});
  }

  int run() {
    const std::int64_t start = begin();
    Metrics* metrics = nullptr;
    if (world_.rank() == 0) metrics = &metrics_.emplace(folder_.path(), start);
    if (watch_.is_on() && start == 0) evaluate_untrained(metrics);
    ImageLoader loader(loader_options(start), crops_, sampler_, picture_source(), shared_memory_);
    const SignalFlag signals;
    Progress progress(terminal_progress("step", steps_, start, world_.rank()));
    saved_at_ = start;
    for (std::int64_t step = start; step < steps_; ++step) {
      const double began = seconds_now();
      ImageBatch last;
      const StepReport report = trainer_.step(step, [&] { return last = loader.next(); });
      if (report.skipped) {
        skip(step, last);
        continue;
      }
      skipped_ = 0;
      note(metrics, progress, step + 1, report, last, seconds_now() - began, loader);
      if (configuration_.run.checkpoint_every > 0 && (step + 1) % configuration_.run.checkpoint_every == 0)
        save(step + 1);
      if (world_.all_reduce_value(signals.is_raised() ? 1 : 0, Reduce::max) > 0) {
        save(step + 1);
        if (world_.rank() == 0)
          spdlog::info("stopped by a signal after step {}; go on with --resume", step + 1);
        return 0;
      }
    }
    save(steps_);
    if (world_.rank() == 0) spdlog::info("done: {} steps, {}", steps_, folder_.path().string());
    return 0;
  }

 private:
  static Dataset open_dataset(const Configuration& configuration) {
    if (configuration.data.path.empty())
      throw Error(ErrorKind::usage, "no training data is given", "data.path",
                  "make a dataset with `bireme prepare images` and pass --data.path DATASET");
    return Dataset::open(configuration.data.path);
  }

  /// Everything that the data may contradict is checked before the run folder is touched.
  const Configuration& checked() const {
    const DatasetManifest& manifest = dataset_.manifest();
    if (manifest.channels != configuration_.model.channels) {
      throw Error(ErrorKind::usage,
                  fmt::format("model.channels is {}, but the pictures have {}", configuration_.model.channels,
                              manifest.channels),
                  dataset_.folder().string(), fmt::format("set model.channels to {}", manifest.channels));
    }
    validate(crops_, manifest.width > 0 ? manifest.width : crops_.global_size,
             manifest.height > 0 ? manifest.height : crops_.global_size, manifest.channels);
    require_divisible_batch(configuration_.data.batch_size,
                            static_cast<int>(configuration_.parallel.accumulate),
                            context_.mesh->data().size());
    return configuration_;
  }

  /// Loads the newest checkpoint, or keeps the untrained network for comparison. Returns the steps done.
  std::int64_t begin() {
    if (request_.resume) {
      if (const auto latest = find_latest_checkpoint(folder_.checkpoints(), world_)) {
        for (const std::string& warning : latest->warnings)
          if (world_.rank() == 0) spdlog::warn("{}", warning);
        const std::int64_t step = load_training_state(state_, latest->folder);
        if (world_.rank() == 0) spdlog::info("resumed after step {} from {}", step, latest->folder.string());
        return step;
      }
    }
    save_teacher(state_, folder_.untrained(), 0);
    return 0;
  }

  void evaluate_untrained(Metrics* metrics) {
    const double untrained = watch_.accuracy(trainer_.teacher().backbone()), raw = watch_.pixel_accuracy();
    if (metrics == nullptr) return;
    metrics->set("knn_untrained", untrained);
    metrics->set("knn_raw", raw);
    metrics->set("knn_teacher", untrained);
    metrics->write(0);
    spdlog::info("20-NN before training: network {:.2f} %, raw pixels {:.2f} %", 100 * untrained, 100 * raw);
  }

  LoaderOptions loader_options(std::int64_t start) const {
    return {.seed = static_cast<std::uint64_t>(configuration_.run.seed),
            .start_step = start,
            .accumulate = static_cast<int>(configuration_.parallel.accumulate),
            .data_rank = context_.mesh->data().rank(),
            .data_size = context_.mesh->data().size(),
            .workers = configuration_.data.workers > 0 ? static_cast<int>(configuration_.data.workers) : 1};
  }

  PictureSource picture_source() const {
    return {.read = [this](std::int64_t record) { return dataset_.read(record); },
            .name = [this](std::int64_t record) { return dataset_.place(record); }};
  }

  void skip(std::int64_t step, const ImageBatch& batch) {
    ++skipped_;
    if (world_.rank() == 0)
      spdlog::warn("step {}: loss or gradient is not finite; the step is not applied (first record {})",
                   step + 1, batch.records.empty() ? -1 : batch.records.front());
    if (skipped_ <= configuration_.run.max_skipped_steps) return;
    throw Error(ErrorKind::not_finite,
                fmt::format("loss or gradient was not finite in {} steps in a row, the last is step {}",
                            skipped_, step + 1),
                folder_.path().string(),
                "lower optimizer.learning_rate or use --precision.type fp32; the last good checkpoint is "
                "kept: go on with --resume");
  }

  void note(Metrics* metrics, Progress& progress, std::int64_t done, const StepReport& report,
            const ImageBatch& batch, double seconds, const ImageLoader& loader) {
    window_seconds_ += seconds;
    ++window_steps_;
    const bool evaluates =
        watch_.is_on() && (done % configuration_.run.evaluate_every == 0 || done == steps_);
    const bool logs = done % configuration_.run.log_every == 0 || done == steps_;
    const double images_per_second =
        static_cast<double>(configuration_.data.batch_size * window_steps_) / window_seconds_;
    progress.update(done,
                    fmt::format("loss {:.4f}  {} images/s", report.loss, short_number(images_per_second)));
    if (!logs && !evaluates) return;
    const auto terms = trainer_.objective().terms();  // collective
    const double teacher = evaluates ? watch_.accuracy(trainer_.teacher().backbone()) : 0;
    const double student = evaluates ? watch_.accuracy(trainer_.student().backbone()) : 0;
    if (metrics != nullptr) {
      metrics->set("loss", report.loss);
      metrics->set("learning_rate", report.learning_rate);
      metrics->set("grad_norm", report.gradient_norm);
      metrics->set("images_per_second", images_per_second);
      metrics->set("gflops_per_second", trainer_.flops(batch) *
                                            static_cast<double>(configuration_.parallel.accumulate) *
                                            static_cast<double>(window_steps_) / window_seconds_ * 1e-9);
      metrics->set("seconds", window_seconds_ / static_cast<double>(window_steps_));
      metrics->set("data_wait_seconds", loader.statistics().wait_seconds);
      for (const auto& [name, value] : terms) metrics->set(name, value);
      if (evaluates) {
        metrics->set("knn_teacher", teacher);
        metrics->set("knn_student", student);
      }
      metrics->write(done);
      if (evaluates)
        spdlog::info("step {}: 20-NN teacher {:.2f} %, student {:.2f} %", done, 100 * teacher, 100 * student);
      if (const std::string warning = trainer_.objective().collapse_warning(); !warning.empty())
        spdlog::warn("{}", warning);
    }
    window_seconds_ = 0;
    window_steps_ = 0;
  }

  void save(std::int64_t step) {
    if (saved_at_ == step) return;
    save_training_state(state_, folder_.checkpoints(), step);
    saved_at_ = step;
    if (world_.rank() == 0)
      prune_checkpoints(folder_.checkpoints(), static_cast<int>(configuration_.run.keep_checkpoints));
    world_.barrier();
  }

  const TrainRequest& request_;
  const Configuration& configuration_;
  Communicator& world_;
  Context context_;
  Dataset dataset_;
  MultiCropOptions crops_;
  Sampler sampler_;
  std::int64_t steps_;
  DinoTrainer trainer_;
  TrainingState state_;
  NearestNeighborWatch watch_;
  RunFolder folder_;
  std::shared_ptr<Memory> shared_memory_ = make_host_memory();
  std::optional<Metrics> metrics_;
  std::int64_t saved_at_ = -1, skipped_ = 0, window_steps_ = 0;
  double window_seconds_ = 0;
};

/// Pictures of noise in the shapes of a real batch.
ImageBatch made_up_batch(const Configuration& configuration, const Context& context) {
  const auto& d = configuration.data;
  const Communicator& data = context.mesh->data();
  const std::int64_t images = d.batch_size / configuration.parallel.accumulate / data.size();
  ImageBatch batch;
  for (std::int64_t i = 0; i < images; ++i) batch.records.push_back(data.rank() * images + i);
  const auto add = [&](std::int64_t crops, std::int64_t side) {
    if (crops == 0) return;
    const Tensor pixels(context.backend->memory(), {crops * images, configuration.model.channels, side, side},
                        DType::f32);
    RandomStream random(0, static_cast<std::uint64_t>(side), RandomUse::test);
    for (float& x : pixels.values<float>()) x = static_cast<float>(random.uniform(-1.7, 1.7));
    batch.groups.push_back({pixels, static_cast<int>(crops), static_cast<int>(side)});
  };
  if (d.local_size == d.global_size) {
    add(2 + d.local_crops, d.global_size);
  } else {
    add(2, d.global_size);
    add(d.local_crops, d.local_size);
  }
  batch.global_count = d.batch_size;
  return batch;
}

}  // namespace

int train(const TrainRequest& request, Communicator& world) { return Training(request, world).run(); }

int dry_run(const Configuration& configuration, Communicator& world) {
  const Context context = make_context(configuration, world);
  require_divisible_batch(configuration.data.batch_size, static_cast<int>(configuration.parallel.accumulate),
                          context.mesh->data().size());
  const std::vector<double> mean(static_cast<std::size_t>(configuration.model.channels), 0.5),
      deviation(mean);
  DinoTrainer trainer(configuration, context, mean, deviation,
                      std::max<std::int64_t>(1, configuration.run.steps));
  const std::size_t fixed = context.backend->memory().statistics().in_use;
  const ImageBatch batch = made_up_batch(configuration, context);
  const double began = seconds_now();
  const StepReport report = trainer.step(0, [&] { return batch; });
  const double seconds = seconds_now() - began;
  if (world.rank() == 0) {
    const auto mib = [](std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
    const std::size_t peak = context.backend->memory().statistics().peak;
    fmt::print("{}\n# parameters of the student        {}\n", to_toml(configuration),
               short_number(static_cast<double>(trainer.student().parameters().elements())));
    fmt::print(
        "# memory of each rank: {:.0f} MiB for weights, gradients, moments and the teacher, {:.0f} MiB for a "
        "step\n",
        mib(fixed), mib(peak - std::min(peak, fixed)));
    fmt::print("# one step on made-up pictures: loss {:.4f}, {:.2f} s, {:.1f} images/s\n", report.loss,
               seconds, static_cast<double>(configuration.data.batch_size) / seconds);
  }
  return 0;
}

}  // namespace bireme
