#pragma once

#include <filesystem>
#include <memory>

#include "core/data/loader.h"
#include "core/optimizer/adamw.h"
#include "core/optimizer/clip.h"
#include "distributed/gradient_sync.h"
#include "launch/dino_options.h"
#include "launch/job.h"
#include "launch/metrics.h"
#include "launch/training_state.h"

namespace bireme {

/// What one optimiser step did.
struct StepReport {
  double loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  bool skipped = false;  ///< loss or gradient was not finite: nothing moved
};

/// The parts of a DINO run on this rank, and the step that they make together. Knows nothing of folders and
/// terminals.
class DinoTrainer {
 public:
  /// Parameters are initialised from run.seed, or from model.init. Collective.
  DinoTrainer(const Configuration& configuration, const Context& context, const std::vector<double>& mean,
              const std::vector<double>& deviation, std::int64_t steps);

  /// One optimiser step; `next` yields its micro-batches.
  StepReport step(std::int64_t step, const std::function<ImageBatch()>& next);

  DinoObjective& objective() { return *objective_; }
  DinoNetwork& student() { return student_; }
  DinoNetwork& teacher() { return teacher_; }
  AdamWOptimizer& optimizer() { return *optimizer_; }
  const PublishedVisionTransformer& published() const { return published_; }
  /// Floating-point operations of a step over this batch on this rank: forward and backward of the student,
  /// forward of the teacher.
  double flops(const ImageBatch& batch) const;

 private:
  void initialize();
  void gather_values();

  const Configuration& configuration_;
  const Context& context_;
  std::int64_t steps_;
  LearningRateSchedule learning_rate_;
  DinoNetwork student_, teacher_;
  PublishedVisionTransformer published_;
  std::unique_ptr<DinoObjective> objective_;
  std::unique_ptr<AdamWOptimizer> optimizer_;
  std::unique_ptr<GradientSync> sync_;
};

/// `bireme train`: the run folder, the loop, checkpoints, evaluation, signals.
struct TrainRequest {
  Configuration configuration;
  std::filesystem::path run;
  bool resume = false;
};
/// @return the exit code
int train(const TrainRequest& request, Communicator& world);

/// `bireme train --dry-run`: one step on made-up pictures, and the memory that it took.
int dry_run(const Configuration& configuration, Communicator& world);

}  // namespace bireme
