#pragma once

#include <memory>
#include <string>

#include "launch/job.h"
#include "launch/vision_features.h"
#include "models/published/vision_transformer.h"

namespace bireme {

/// A trained (or published) vision transformer at work on datasets: what `features` and `evaluate` share. The
/// work is spread over the ranks of `world`; every rank holds the whole model.
class Evaluation {
 public:
  /// @param model  checkpoint, run or Hugging Face folder; "pixels" for the pictures themselves as features
  Evaluation(const std::string& model, Communicator& world);

  const Backend& backend() const { return *context_.backend; }
  /// Class-token features, with a progress bar.
  LabeledFeatures features(const std::string& dataset) const;
  /// The class tokens of the last `blocks` blocks, side by side.
  LabeledFeatures last_blocks(const std::string& dataset, int blocks) const;

 private:
  EvaluationPictures pictures(const std::string& dataset) const;
  FeatureProgress progress(const std::string& dataset) const;

  Communicator& world_;
  Context context_;
  std::unique_ptr<Communicator> alone_;  // the model is not split
  std::optional<LoadedVisionTransformer> loaded_;
};

}  // namespace bireme
