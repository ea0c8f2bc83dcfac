#pragma once

#include "core/data/answer_loader.h"
#include "launch/answer_training.h"
#include "launch/pair_diagnostics.h"
#include "launch/preference_evaluation.h"
#include "launch/training_task.h"
#include "models/published/language_model.h"
#include "objectives/preference_objective.h"

namespace bireme {

/// Alignment of a language model on prompts with answers. A checkpoint's model is the policy, with its
/// tokenizer beside it; a value function is part of the training state. On the way the ranking of held-out
/// pairs is measured, and how often judges prefer the policy's answers to those of its reference.
class PreferenceTask final : public TrainingTask {
 public:
  /// Parameters come from model.init, or from run.seed. Sums of a reference are computed here, once for the
  /// whole dataset. Collective.
  PreferenceTask(const Configuration& configuration, const Context& context, TaskData data);

  PreferenceObjective& objective() override { return *objective_; }
  std::int64_t steps() const override { return steps_; }
  std::string fingerprint() const override { return data_->dataset.fingerprint(); }
  void enter(const std::filesystem::path& run) override;
  void start(std::int64_t step) override;
  Batch next() override { return loader_->next(); }
  double wait_seconds() const override { return loader_->wait_seconds(); }
  Batch made_up_batch() const override;
  const char* unit() const override { return unit_; }
  std::int64_t units_per_step() const override { return configuration_.data.batch_size; }
  CheckpointContent model() const override;
  std::vector<CheckpointFile> state() const override;
  void loaded() override;
  void record(const std::filesystem::path& run, std::int64_t done) override;
  bool evaluates() const override { return evaluation_ != nullptr; }
  TrainingEvaluation evaluate(bool is_first) override;

  PublishedLanguageModel& published() { return *model_; }

 private:
  void open_data();
  std::unique_ptr<PublishedLanguageModel> make_model() const;
  void initialize(PublishedLanguageModel& model) const;
  void make_value_function();
  void make_objective();
  /// Sums of every answer and of held-out pairs under the reference, and what its weights are.
  void compute_references();
  /// From the cache beside the dataset, which is made or completed where that is needed.
  void read_references(const std::filesystem::path& folder, bool borrows);
  /// The model that the policy is compared with: itself before the first step, or objective.reference, opened
  /// when something asks for it.
  const LanguageModel& reference();
  void describe(PlacedAnswer& answer, std::size_t which) const;
  /// The rows of this rank's first records of a step and those that follow it.
  AnswerRows rows_of_steps(std::int64_t first, std::size_t wanted) const;
  /// What the variance of the policy's gradient is measured on: what the value function has not seen yet in
  /// this epoch.
  AnswerRows answers_after(std::int64_t step) const;
  AnswerLoaderOptions loader_options(std::int64_t step) const;
  /// Prints what a wrong template, type or cache would show in, before the first step.
  void check_start();

  const Configuration& configuration_;
  const Context& context_;
  std::unique_ptr<AnswerTrainingData> data_;  // null for made-up batches
  ScoreStatistics scores_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::int64_t steps_;
  const char* unit_;
  std::unique_ptr<PublishedLanguageModel> model_, reference_, value_model_;
  std::unique_ptr<PublishedLanguageModel> opened_reference_;  // until training begins
  std::unique_ptr<ParameterSet> constant_;                    // of a value function that is one number
  ValueHead value_head_;
  std::unique_ptr<PreferenceObjective> objective_;
  std::vector<double> references_, mismatched_references_;
  std::unique_ptr<PreferenceEvaluation> evaluation_;  // null where nothing is measured
  std::unique_ptr<AnswerLoader> loader_;
  PairDiagnostics diagnostics_;
};

}  // namespace bireme
