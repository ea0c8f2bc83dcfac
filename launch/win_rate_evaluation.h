#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/data/answer_dataset.h"
#include "launch/job.h"
#include "models/published/language_model.h"
#include "objectives/evaluate/judge_panel.h"

namespace bireme {

/// Judges by the names that a user gives: run folders and the like, or likelihood:MODEL.
std::vector<JudgePanel::Name> resolve_judges(const std::vector<std::string>& names);

/// How often judges prefer the answers of a policy in training to those of its reference: what `bireme
/// evaluate win-rate` measures of checkpoints, with the same parts.
class WinRateEvaluation {
 public:
  /// Whether the configuration asks for one.
  static bool is_wanted(const Configuration& configuration);

  /// Reads prompts and judges, keeps the rules of judging, and measures what the judges are worth.
  /// Collective over the world.
  /// @param data  what the policy trains on: prompts are written down as there
  /// @throws Error (data, usage, checkpoint)
  WinRateEvaluation(const Configuration& configuration, const Context& context, const AnswerDataset& data,
                    const PublishedLanguageModel& policy);

  /// Where a run keeps its reference's answers.
  static std::filesystem::path reference_file(const std::filesystem::path& run);
  /// Takes the reference's answers from the run's folder; where that has none to these questions with these
  /// settings, `reference` writes them. Collective.
  void begin(const std::filesystem::path& run, const std::function<const LanguageModel&()>& reference);
  bool has_begun() const { return !reference_answers_.empty(); }
  /// Which model the reference is: the hash of its folder where it has one. Before begin() on rank 0 alone.
  const std::string& reference_identity() const { return reference_identity_; }

  struct Found {
    /// Where there are judges, of the judged win rate; where the rule is known, of the gold one.
    std::vector<std::pair<std::string, double>> numbers;
    std::string message;
    /// The questions with the policy's answers, as a model scores them.
    std::vector<AnswerRecord> answers;
    std::vector<std::string> texts;  ///< of the answers
    std::vector<double> outcomes;    ///< of each question: 1 where the policy won, ½ for a tie, 0
    std::vector<double> gold;        ///< the same by the gold rule
  };
  /// Collective.
  Found evaluate(const LanguageModel& policy) const;

 private:
  void check_judges(const AnswerDataset& data);
  void add_judged(const std::vector<SampledAnswer>& answers, Found& found) const;
  void add_gold(const std::vector<SampledAnswer>& answers, Found& found) const;
  SampleAnswersOptions sampling() const;
  std::vector<SampledAnswer> sample(const LanguageModel& model) const;
  /// What the reference's answers depend on, in one line.
  std::string settings() const;
  std::string kept_text(const std::vector<SampledAnswer>& answers) const;
  /// Nothing where the text is of other questions or settings.
  std::vector<SampledAnswer> parse_kept(const std::string& text) const;

  const Configuration& configuration_;
  const Context& context_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::int32_t end_;
  TokenList stop_tokens_;
  std::string reference_identity_;
  Questions questions_;
  JudgePanel judges_;
  JudgeCheck check_;
  std::vector<SampledAnswer> reference_answers_;
  JudgedAnswers reference_judged_;
};

}  // namespace bireme
