#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/data/answer_manifest.h"
#include "core/text/tokenizer.h"

namespace bireme {

/// A prompt with the answers that were given to it, as tokens. The answers follow the prompt each on its own:
/// they share its tokens, and their first token is predicted by its last.
struct AnswerRecord {
  std::int64_t number = 0;                         ///< in the dataset, from 0 on
  std::vector<std::int32_t> prompt;                ///< begin token included; may be empty
  std::vector<std::vector<std::int32_t>> answers;  ///< pairs: {chosen, rejected}; feedback, sft: {completion}
  double preference = 1;                           ///< share of raters for the chosen answer; 1 if not given
  std::vector<double> scores;                      ///< one per answer, NaN where none was given
  std::optional<bool> label;                       ///< feedback: like or dislike
  std::uint64_t prompt_key = 0;                    ///< equal for equal prompts; decides the part of the data
  std::vector<bool> is_cut;    ///< per answer: truncation took its end, end token included
  bool is_prompt_cut = false;  ///< truncation took the beginning of the prompt
};

/// Token counts of a record. Answer tokens are scored, all of them where there is a prompt; without one the
/// first has nothing that predicts it.
struct AnswerLengths {
  std::int64_t prompt = 0;
  std::vector<std::int64_t> answers;

  std::int64_t scored(std::size_t answer) const { return answers[answer] - (prompt == 0 ? 1 : 0); }
};

/// Mean and population standard deviation.
struct ScoreStatistics {
  std::int64_t count = 0;
  double mean = 0, deviation = 0;
};

/// A folder made by `bireme prepare sft`, `pairs` or `feedback`: dataset.json, shards in HDF5, and the
/// tokenizer's files. Record i is the same for everyone who opens the folder. All methods are thread-safe.
class AnswerDataset {
 public:
  /// Opens the folder and checks what is cheap to check for all shards.
  /// @param accepted  kinds that will do, the best first
  /// @throws Error (data); for a dataset of another kind with the `prepare` command that makes the right one
  static AnswerDataset open(const std::filesystem::path& folder, std::initializer_list<AnswerKind> accepted);

  AnswerDataset(AnswerDataset&&) noexcept;
  AnswerDataset& operator=(AnswerDataset&&) noexcept;
  ~AnswerDataset();

  const std::filesystem::path& folder() const;
  /// Kind, counts, vocabulary, end token, maximal length and truncation, chat template.
  const AnswerManifest& manifest() const;
  AnswerKind kind() const { return manifest().answer_kind; }
  std::int64_t size() const { return manifest().records; }
  /// Changes whenever any record does; checkpoints and reference caches keep it.
  const std::string& fingerprint() const;
  /// SHA-256 of dataset.json, in hexadecimal digits.
  const std::string& manifest_sha256() const;
  /// The tokenizer that the dataset was made with.
  /// @throws Error (data) when its files are not those that the manifest speaks of
  std::shared_ptr<const Tokenizer> tokenizer() const;

  /// @throws Error (data) naming shard and remedy, also for a number that is not there
  AnswerRecord read(std::int64_t number) const;
  /// What every rank needs to know of all records, without reading tokens.
  AnswerLengths lengths(std::int64_t number) const;
  std::uint64_t prompt_key(std::int64_t number) const;
  /// Share of raters for the chosen answer.
  double preference(std::int64_t number) const;
  /// True when truncation took the end of one of its answers, so that their likelihoods do not compare.
  bool is_cut(std::int64_t number) const;

  /// Scores of feedback, or where there are none labels as 1 and 0: what DRO normalises its rewards by.
  /// Without either, count is 0.
  ScoreStatistics score_statistics() const;
  /// The record's score, or its label as 1 or 0. @throws Error (data) when the dataset has scores but this
  /// record has none, or neither
  double score(std::int64_t number) const;
  /// The record's label, or whether its score is above the mean of the dataset: what KTO takes.
  /// @throws Error (data) when it has neither
  bool label(std::int64_t number) const;
  struct LabelCounts {
    std::int64_t likes = 0, dislikes = 0;
  };
  /// By label() of each record. @throws as label()
  LabelCounts label_counts() const;

  /// Compares the checksum of every shard and opens the tokenizer. Returns one line for each damage.
  std::vector<std::string> verify(
      const std::function<void(std::int64_t done, std::int64_t total)>& progress = {}) const;

 private:
  struct Implementation;
  explicit AnswerDataset(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

/// What `bireme inspect` prints, with the first record as text.
std::string describe(const AnswerDataset& dataset);

}  // namespace bireme
