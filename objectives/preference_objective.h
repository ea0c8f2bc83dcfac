#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "distributed/mesh.h"
#include "models/language_model.h"
#include "objectives/objective.h"
#include "objectives/preference/preference_loss.h"
#include "objectives/value_function.h"

namespace bireme {

/// Sums of an answer's log-probabilities, from those of the scored tokens of a pass: [N] fp64.
std::vector<Answer> add_up(const AnswerRows& rows, const Tensor& log_probabilities);
/// Sums of a pass without a gradient: what a reference model, or an evaluation, makes of it.
std::vector<Answer> score_answers(const Backend& backend, const LanguageModel& model, const AnswerRows& rows,
                                  DType type);

/// Alignment of a language model: one forward pass over prompts with their answers, a sum of
/// log-probabilities for each answer, and a PreferenceLoss that says from the sums what every scored token
/// counts for. The same for every objective, model and layout over ranks: losses are means over the records
/// of the whole step, likelihoods over its imitated tokens.
class PreferenceObjective final : public Objective {
 public:
  struct Options {
    DType type = DType::f32;
    bool recompute = false;
    /// Likelihood as a mean over records of means over tokens, not over all tokens of the step.
    bool imitates_by_record = false;
    double companion_rate = 1;           ///< learning rate of a separate value function, in policy's
    std::int64_t diagnostics_every = 0;  ///< steps; 0: what costs a pass of its own is not measured
    std::int64_t variance_every = 0;     ///< the same for the variance of the policy gradient
    /// What that is measured on: this rank's share of some answers of the steps after one.
    std::function<AnswerRows(std::int64_t step)> answers_after = {};
    std::int64_t value_warmup_steps = 0;  ///< steps in which the value function learns alone
  };
  /// Beside the model itself.
  struct Networks {
    const LanguageModel* reference = nullptr;  ///< for mismatched texts; null: nothing needs it
    std::unique_ptr<ValueFunction> value;      ///< null: values are given, or not needed
    ParameterSet* value_parameters = nullptr;  ///< of a value function beside the model
  };
  PreferenceObjective(const Options& options, const Mesh& mesh, LanguageModel& model,
                      std::unique_ptr<PreferenceLoss> loss, Networks networks);

  ParameterSet& parameters() override { return model_.parameters(); }
  TrainedNetwork* companion() override { return companion_ ? &*companion_ : nullptr; }
  void begin(std::int64_t step) override;
  Var compute(Tape& tape, const Batch& batch) override;
  void backward_companion(const Tape::Ready& ready) override;
  double reduce() override;
  void after_step() override;
  Terms terms() const override;
  double flops(const Batch& batch) const override;

  /// All answers of the last step, over ranks and parts, after reduce().
  const std::vector<Answer>& step() const { return step_; }
  const PreferenceLoss& loss() const { return *loss_; }

 private:
  void set_reference_point(const Backend& backend, const AnswerBatch& batch);
  std::vector<double> values_of(Tape& tape, const AnswerBatch& batch, const Var& hidden);
  void place(const AnswerBatch& batch, const std::vector<Answer>& answers);
  /// Sums the table of the step's answers, of which each rank has its own, over the data ranks.
  void combine_step();
  /// Of the whole step.
  double negative_log_likelihood() const;
  /// What one imitated token of this answer counts for.
  double imitation_of(const Answer& answer, const AnswerBatch& batch) const;
  bool measures_share() const;
  /// Adds this part's gradients of the likelihood and of the preference at the output matrix. Leaves the
  /// gradients of the step as they are.
  void add_shares(const Backend& backend, const Tensor& hidden, const AnswerRows& rows, const Tensor& dscores,
                  const std::vector<double>& imitation);
  /// ‖gradient of the preference‖ / ‖gradient of the likelihood‖, of the whole step. Collective.
  void measure_share();

  Options options_;
  const Mesh& mesh_;
  LanguageModel& model_;
  std::unique_ptr<PreferenceLoss> loss_;
  Networks networks_;
  std::optional<TrainedNetwork> companion_;
  std::vector<Answer> step_;  // by position in the step
  bool combined_ = false;
  std::int64_t step_number_ = 0;
  bool is_first_part_ = true;
  Tensor shares_;                 // [2, of the output matrix]: gradients of likelihood and preference
  double preference_share_ = -1;  // not measured yet
  Terms variance_;
  const Backend* backend_ = nullptr;  // of the step, for a measurement after it
  // The value function's own pass of the micro-batch, and what flows back into it.
  std::unique_ptr<Tape> value_tape_;
  ValueFunction::Values values_;
  Tensor dvalues_;
};

}  // namespace bireme
