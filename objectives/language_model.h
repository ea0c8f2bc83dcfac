#pragma once

#include "distributed/mesh.h"
#include "models/language_model.h"
#include "objectives/objective.h"
#include "objectives/part_sums.h"

namespace bireme {

/// The next token of text: the mean over all targets of -log p(target), over ranks and micro-batches as if
/// they were one (a mean of means would weigh targets by how they happen to be spread).
class LanguageModelObjective final : public Objective {
 public:
  struct Options {
    DType type = DType::f32;  ///< compute type
    bool recompute = false;
    std::int64_t step_tokens = 0;  ///< positions of an optimiser step, over ranks and micro-batches
    double z_loss = 0;             ///< see TokenLossOptions
    double l2_wrap = 0;
  };
  /// @param model  built; the caller sets its values
  LanguageModelObjective(const Options& options, const Mesh& mesh, LanguageModel& model);

  ParameterSet& parameters() override { return model_.parameters(); }
  void begin(std::int64_t step) override;
  Var compute(Tape& tape, const Batch& batch) override;
  double reduce() override;
  /// Positions without a target (document borders) are counted only after the last backward pass: until then
  /// the loss is divided by the number of all positions.
  double gradient_scale() const override { return scale_; }
  /// perplexity, bits_per_token, and accuracy: the share of targets that are the most probable token
  std::vector<std::pair<std::string, double>> terms() const override;
  double flops(const Batch& batch) const override;

 private:
  Options options_;
  const Mesh& mesh_;
  LanguageModel& model_;
  double loss_ = 0, targets_ = 0, top_ = 0, scale_ = 1;
  PartSums parts_;  // loss and number of tops
};

}  // namespace bireme
