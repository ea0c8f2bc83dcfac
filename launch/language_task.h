#pragma once

#include <memory>

#include "core/data/token_dataset.h"
#include "core/data/token_loader.h"
#include "launch/training_task.h"
#include "models/published/language_model.h"
#include "objectives/language_model.h"

namespace bireme {

/// What a configuration says of the model itself. @param vocabulary  where model.vocabulary_size is 0
LanguageModelSettings language_model_settings(const Configuration& configuration, std::int64_t vocabulary);

/// Language modelling on a dataset of text. A checkpoint's model is the trained one, with its tokenizer
/// beside it; on the way the perplexity of a validation text is measured.
class LanguageTask final : public TrainingTask {
 public:
  /// Parameters are initialised from run.seed, or from model.init. Collective.
  LanguageTask(const Configuration& configuration, const Context& context, TaskData data);

  LanguageModelObjective& objective() override { return *objective_; }
  std::int64_t steps() const override { return steps_; }
  std::string fingerprint() const override { return dataset_->fingerprint(); }
  void start(std::int64_t step) override;
  Batch next() override { return loader_->next(); }
  double wait_seconds() const override { return loader_->wait_seconds(); }
  Batch made_up_batch() const override;
  const char* unit() const override { return "tokens"; }
  std::int64_t units_per_step() const override;
  CheckpointContent model() const override;
  void loaded() override { model_->model().parameters().refresh_bf16(); }
  bool evaluates() const override { return validation_ != nullptr; }
  TrainingEvaluation evaluate(bool is_first) override;

  PublishedLanguageModel& published() { return *model_; }

 private:
  void open_data();
  LanguageModelSettings settings() const;
  TokenWindows windows() const;
  void initialize();

  const Configuration& configuration_;
  const Context& context_;
  std::unique_ptr<TokenDataset> dataset_, validation_;  // null where there is none
  std::shared_ptr<const Tokenizer> tokenizer_;          // null for ready-made tokens
  std::unique_ptr<Sampler> sampler_;
  std::int64_t steps_;
  std::unique_ptr<PublishedLanguageModel> model_;
  std::unique_ptr<LanguageModelObjective> objective_;
  std::unique_ptr<TokenLoader> loader_;
};

}  // namespace bireme
