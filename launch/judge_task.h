#pragma once

#include "core/data/read_ahead.h"
#include "launch/answer_training.h"
#include "launch/training_task.h"
#include "models/published/language_model.h"
#include "objectives/evaluate/judge.h"
#include "objectives/judge_objective.h"

namespace bireme {

/// Training of a judge on preference pairs. A checkpoint is a judge: the model with its tokenizer, the head,
/// and where it comes from; on the way its accuracy on held-out pairs is measured.
class JudgeTask final : public TrainingTask {
 public:
  /// Parameters come from model.init, or from run.seed; the head always from run.seed. Collective.
  JudgeTask(const Configuration& configuration, const Context& context, TaskData data);

  JudgeObjective& objective() override { return *objective_; }
  std::int64_t steps() const override { return steps_; }
  std::string fingerprint() const override { return data_->dataset.fingerprint(); }
  void start(std::int64_t step) override;
  Batch next() override { return batches_->next(); }
  double wait_seconds() const override { return batches_->wait_seconds(); }
  Batch made_up_batch() const override;
  const char* unit() const override { return "pairs"; }
  std::int64_t units_per_step() const override { return configuration_.data.batch_size; }
  CheckpointContent model() const override;
  void loaded() override { model_->model().parameters().refresh_bf16(); }
  bool evaluates() const override { return data_ && data_->validation != nullptr; }
  TrainingEvaluation evaluate(bool is_first) override;

 private:
  JudgeDescription description() const;

  const Configuration& configuration_;
  const Context& context_;
  std::unique_ptr<AnswerTrainingData> data_;  // null for made-up batches
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::int64_t steps_;
  std::string base_;  // hash of the model that training begins with
  std::unique_ptr<PublishedLanguageModel> model_;
  Parameter* head_ = nullptr;
  std::unique_ptr<JudgeObjective> objective_;
  std::unique_ptr<ReadAhead<TokenBatch>> batches_;
};

}  // namespace bireme
