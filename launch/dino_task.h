#pragma once

#include <memory>

#include "core/data/dataset.h"
#include "core/data/loader.h"
#include "launch/training_task.h"
#include "launch/vision_features.h"
#include "models/published/vision_transformer.h"
#include "objectives/dino.h"

namespace bireme {

/// Self-distillation (DINO) on pictures: student and teacher, crops, and the k-NN on the way, which is the
/// only measure of what has been learnt, since the loss moves with the teacher. A checkpoint's model is the
/// teacher.
class DinoTask final : public TrainingTask {
 public:
  /// Parameters are initialised from run.seed, or from model.init. Collective.
  DinoTask(const Configuration& configuration, const Context& context, TaskData data);

  DinoObjective& objective() override { return *objective_; }
  std::int64_t steps() const override { return steps_; }
  std::string fingerprint() const override { return dataset_->fingerprint(); }
  void start(std::int64_t step) override;
  Batch next() override { return loader_->next(); }
  double wait_seconds() const override { return loader_->statistics().wait_seconds; }
  Batch made_up_batch() const override;
  const char* unit() const override { return "images"; }
  std::int64_t units_per_step() const override { return configuration_.data.batch_size; }
  CheckpointContent model() const override;
  std::vector<CheckpointFile> state() const override;
  void loaded() override;
  bool evaluates() const override { return test_ != nullptr; }
  TrainingEvaluation evaluate(bool is_first) override;

  DinoNetwork& student() { return student_; }
  DinoNetwork& teacher() { return teacher_; }

 private:
  void open_data();
  void initialize();
  double accuracy(const DinoNetwork& network) const;
  double score(const LabeledFeatures& train, const LabeledFeatures& test) const;

  const Configuration& configuration_;
  const Context& context_;
  std::unique_ptr<Dataset> dataset_;  // null for made-up pictures
  MultiCropOptions crops_;
  std::unique_ptr<Sampler> sampler_;
  std::int64_t steps_;
  DinoNetwork student_, teacher_;
  PublishedVisionTransformer published_;  // the teacher
  std::unique_ptr<DinoObjective> objective_;
  std::unique_ptr<EvaluationPictures> train_, test_;  // null without evaluation
  std::unique_ptr<ImageLoader> loader_;
};

}  // namespace bireme
