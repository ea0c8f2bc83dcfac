#pragma once

#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "objectives/evaluate/judging.h"

namespace bireme {

/// One system's answers to questions, in their order, as judges score them.
struct JudgedAnswers {
  std::vector<Passage> answers;
  std::vector<std::int64_t> lengths;        ///< in tokens of the answering model
  std::vector<std::vector<double>> scores;  ///< of each judge
};

/// What judges make of two systems' answers to the same questions.
struct Comparison {
  WinRate rate;
  double agreement = 0;  ///< share of questions on which all judges prefer the same side
};
/// Each judge's scores of both systems are standardised together and averaged.
Comparison compare(const JudgedAnswers& a, const JudgedAnswers& b, const WinRateOptions& options = {});

/// An answer's text in the form of its prompt, as a judge reads it.
Passage passage_of(const Question& question, const std::string& answer);

/// Judges that speak together. Every rank holds them whole, and takes its share of what they read.
class JudgePanel {
 public:
  /// What stands before the folder of a model that is to judge by likelihood, see Judge::open_likelihood().
  static constexpr std::string_view kLikelihood = "likelihood:";

  /// A judge as it is named on the command line.
  struct Name {
    std::filesystem::path folder;
    bool reads_likelihoods = false;
  };
  static Name parse(const std::string& name);

  /// @param names  of folders of models with a judge's head, or of any language models
  /// @throws Error (checkpoint) when one holds no judge
  JudgePanel(const std::vector<Name>& names, const Backend& backend, DType type);

  std::int64_t size() const { return std::ssize(judges_); }

  /// The rules of judging: a judge starts from another model than those it judges, and knows other prompts.
  /// @param judged  hash_of_model() of the models that answer
  /// @throws Error (usage) naming the judge
  void require_independence(const std::set<std::string>& judged, bool allows_overlap) const;
  /// True when every judge was trained on the part `judge` of the prompts.
  bool knows_its_part_only() const;
  /// True when a judge reads likelihoods: no claim is made then, however right it is.
  bool is_for_debugging() const;

  /// Measures how far the judges are to be trusted. Collective over `ranks`.
  /// @param tokenizer  that lengths are counted in
  JudgeCheck check(Communicator& ranks, const std::vector<AnswerText>& pairs, const Tokenizer& tokenizer,
                   const JudgingProgress& progress = {}) const;

  /// Scores answers to questions, one to each. Collective over `ranks`.
  JudgedAnswers judge(Communicator& ranks, const std::vector<Question>& questions,
                      std::vector<Passage> answers, std::vector<std::int64_t> lengths,
                      const JudgingProgress& progress = {}) const;
  JudgedAnswers judge(Communicator& ranks, const std::vector<Question>& questions,
                      const std::vector<SampledAnswer>& answers, const JudgingProgress& progress = {}) const;

 private:
  std::vector<std::vector<double>> scores(Communicator& ranks, const std::vector<AnswerText>& texts,
                                          const JudgingProgress& progress) const;

  std::vector<Name> names_;
  std::unique_ptr<Communicator> alone_;
  std::vector<Judge> judges_;
};

}  // namespace bireme
