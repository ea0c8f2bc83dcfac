#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distributed/checkpoint.h"
#include "launch/job.h"
#include "objectives/objective.h"

namespace bireme {

/// Whether a task trains on the dataset of data.path, or on made-up records of its shapes.
enum class TaskData { real, made_up };

/// What a look at the model in training found.
struct TrainingEvaluation {
  std::vector<std::pair<std::string, double>> numbers;  ///< for the metrics
  std::string message;                                  ///< for the log
  std::string details = {};  ///< JSON, kept in RUN/evaluation/step-NNNNNNNN.json; empty: nothing
};

/// What one kind of run brings to the training loop: its data, its networks and objective, what its
/// checkpoints hold, and how it is judged on the way.
class TrainingTask {
 public:
  virtual ~TrainingTask() = default;

  virtual Objective& objective() = 0;
  /// Optimiser steps of the whole run.
  virtual std::int64_t steps() const = 0;
  /// Changes whenever the training data does.
  virtual std::string fingerprint() const = 0;

  /// With the run's folder at hand, before a checkpoint is loaded: the model still is where training begins.
  virtual void enter(const std::filesystem::path& /*run*/) {}
  /// Begins to read ahead, from the batch of this step on.
  virtual void start(std::int64_t step) = 0;
  /// This rank's share of the next micro-batch.
  virtual Batch next() = 0;
  /// Time that next() has waited for data.
  virtual double wait_seconds() const = 0;
  /// What next() would give, of noise.
  virtual Batch made_up_batch() const = 0;

  /// What is counted for the rate: "images", "tokens".
  virtual const char* unit() const = 0;
  virtual std::int64_t units_per_step() const = 0;

  /// The published folder: what other programs open, and what is evaluated and exported.
  virtual CheckpointContent model() const = 0;
  /// Other tensors that a step changes, optimiser state aside.
  virtual std::vector<CheckpointFile> state() const { return {}; }
  /// After a checkpoint was loaded into the tensors of model() and state().
  virtual void loaded() = 0;

  /// After a step, on the first rank: what a task writes beside the metrics of a run.
  virtual void record(const std::filesystem::path& /*run*/, std::int64_t /*steps done*/) {}

  /// Whether evaluate() has something to evaluate with.
  virtual bool evaluates() const = 0;
  /// @param is_first  before the first step
  virtual TrainingEvaluation evaluate(bool is_first) = 0;
};

/// The task that objective.type and model.type name.
/// @throws Error (usage, data) for what configuration and data contradict, before anything is written
std::unique_ptr<TrainingTask> make_training_task(const Configuration& configuration, const Context& context,
                                                 TaskData data);

}  // namespace bireme
