#pragma once

#include <span>

#include "core/data/answer_dataset.h"
#include "distributed/mesh.h"
#include "models/language_model.h"
#include "objectives/objective.h"

namespace bireme {

/// Pairs as the rows of one pass: a document for each answer, the chosen one of each pair before the
/// rejected. `targets` mark the last row of each answer, where it is scored: 0 chosen, 1 rejected, -1
/// elsewhere.
TokenBatch judge_batch(std::span<const AnswerRecord> pairs, Memory& memory);

/// A reward model (Bradley and Terry 1952; Ouyang et al. 2022, eq. 1): r(x, y) is a linear function of the
/// hidden state of the answer's last token, and pairs teach it by
///     loss = mean over pairs of -log σ(r_w - r_l) + centre·(r_w + r_l)²
/// where the second term pins the mean of the scores, which the first leaves free.
class JudgeObjective final : public Objective {
 public:
  struct Options {
    DType type = DType::f32;  ///< compute type
    bool recompute = false;
    double centre = 0.01;
  };
  /// @param head  [1, C], one of the model's parameters
  JudgeObjective(const Options& options, const Mesh& mesh, LanguageModel& model, Parameter& head);

  ParameterSet& parameters() override { return model_.parameters(); }
  void begin(std::int64_t step) override;
  Var compute(Tape& tape, const Batch& batch) override;
  double reduce() override;
  /// accuracy: share of the step's pairs with r_w > r_l
  std::vector<std::pair<std::string, double>> terms() const override;
  double flops(const Batch& batch) const override;

 private:
  Options options_;
  const Mesh& mesh_;
  LanguageModel& model_;
  Parameter& head_;
  double loss_ = 0, accuracy_ = 0;
};

}  // namespace bireme
