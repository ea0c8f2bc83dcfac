#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/data/answer_tokens.h"
#include "models/published/language_model.h"

namespace bireme {

/// judge.json beside a judge's weights: where it comes from, so that the rules of judging can be checked, and
/// how it reads text.
struct JudgeDescription {
  static constexpr const char* kFile = "judge.json";
  static constexpr const char* kWeights = "judge.safetensors";  ///< with `score.weight` [1, C]

  std::string base;  ///< SHA-256 of the model that its training began with, see hash_of_model()
  std::string part;  ///< of the prompts that it was trained on
  std::string data;  ///< fingerprint of that dataset
  std::int64_t seed = 0;
  // As the dataset was prepared.
  std::int32_t end = -1;
  std::string chat_template{};  ///< that strings are written down by too; empty: they stand as they are
  std::int64_t max_length = 1024;

  std::string to_json() const;
  /// @throws Error (checkpoint)
  static JudgeDescription read(const std::filesystem::path& folder);
};
/// True for a folder that holds a judge.
bool holds_judge(const std::filesystem::path& folder);

/// A reward model: one number r(x, y) for an answer to a prompt, a linear function of the final hidden state
/// of the answer's last token, which is the end token where the answer has one. Made by `bireme train` with
/// objective.type = judge; a folder in the format of Hugging Face with the head beside it.
class Judge {
 public:
  /// @param tensor  ranks that the model is split over
  /// @throws Error (checkpoint) when the folder holds no judge, with what to do
  static Judge open(const std::filesystem::path& folder, const Backend& backend, Communicator& tensor,
                    DType type);

  const JudgeDescription& description() const { return description_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

  /// A language model as a judge that reads likelihoods: the score of an answer is its mean log-probability.
  /// For debugging only: it rewards what is fluent, and shares the blind spots of the models that it judges.
  /// @throws Error (checkpoint) when the folder holds no language model with a tokenizer
  static Judge open_likelihood(const std::filesystem::path& folder, const Backend& backend,
                               Communicator& tensor, DType type);
  bool reads_likelihoods() const { return weight_.empty(); }

  /// Its scores, for each record one of each answer.
  std::vector<std::vector<double>> score(std::span<const AnswerRecord> records) const;
  /// The same of texts, read as it learnt to. An answer that is beyond its length is cut at the end, and a
  /// prompt that leaves no room for an answer at its beginning.
  std::vector<std::vector<double>> score(std::span<const AnswerText> texts) const;

 private:
  Judge(const Backend& backend, DType type) : backend_(&backend), type_(type) {}

  const Backend* backend_;
  DType type_;
  JudgeDescription description_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<PublishedLanguageModel> published_;
  std::vector<float> weight_;  // [C]; empty: it reads likelihoods
};

/// Scores of every answer of the records by a head on a model: the hidden state of the last token times the
/// weight. Collective over the tensor ranks of the model.
/// @param weight  [C]
std::vector<std::vector<double>> judge_records(const Backend& backend, const LanguageModel& model,
                                               std::span<const float> weight,
                                               std::span<const AnswerRecord> records, DType type);

}  // namespace bireme
