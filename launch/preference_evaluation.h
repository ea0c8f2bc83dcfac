#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "launch/answer_training.h"
#include "launch/training_task.h"
#include "launch/win_rate_evaluation.h"
#include "objectives/evaluate/ranked_pairs.h"
#include "objectives/preference/preference_loss.h"

namespace bireme {

/// What a preference training measures on its way: how the policy ranks held-out pairs, how often judges
/// prefer its answers to those of its reference, and how far it has gone from there.
class PreferenceEvaluation {
 public:
  /// Whether the run has held-out pairs, or prompts for a win rate.
  static bool is_wanted(const Configuration& configuration, const AnswerTrainingData& data);

  /// Keeps what the reference says of the held-out pairs, and its weights. Collective.
  PreferenceEvaluation(const Configuration& configuration, const Context& context,
                       const AnswerTrainingData& data, PublishedLanguageModel& policy,
                       const LanguageModel& reference, const PreferenceLoss& loss);
  /// Before the first measurement. The reference is asked for where the run's folder has no answers of it
  /// yet.
  void begin(const std::filesystem::path& run, const std::function<const LanguageModel&()>& reference);
  /// The hash of the reference's folder where it is known already; on rank 0, before begin().
  std::optional<std::string> reference_hash() const {
    return win_rate_ ? std::optional(win_rate_->reference_identity()) : std::nullopt;
  }
  /// Collective. What it finds of single pairs and prompts goes into the details.
  TrainingEvaluation measure();

 private:
  void rank(TrainingEvaluation& found, nlohmann::ordered_json& details) const;
  void judge(TrainingEvaluation& found, nlohmann::ordered_json& details);
  /// Of the held-out pairs.
  RecordScores scores_under(const LanguageModel& model) const;
  /// KL(policy || reference), estimated on answers of the policy. @see Chen et al. 2024, section 5
  double divergence(const std::vector<AnswerRecord>& answers);

  const Configuration& configuration_;
  const Context& context_;
  const AnswerTrainingData& data_;
  PublishedLanguageModel& policy_;
  const PreferenceLoss& loss_;
  ComparableRecords comparable_;          // of the held-out pairs
  RecordScores reference_scores_;         // of these
  std::vector<Tensor> reference_values_;  // of each parameter; empty where structures differ
  std::unique_ptr<WinRateEvaluation> win_rate_;
};

}  // namespace bireme
