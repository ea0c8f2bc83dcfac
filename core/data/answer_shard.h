#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/data/answer_dataset.h"
#include "core/data/shard_file.h"

namespace bireme {

// Names in a shard of prompts with answers, beside those of every shard. R records of A answers (2 in pairs,
// else 1): the tokens of each record one after another, prompt first (uint16 where the vocabulary fits, else
// uint32); counts of them; flags.
namespace answer_names {
inline constexpr const char *tokens = "tokens",
                            *prompt_lengths = "prompt_lengths",        // [R]
                                *answer_lengths = "answer_lengths",    // [R·A]
                                    *prompt_keys = "prompt_keys",      // [R]
                                        *preferences = "preferences",  // [R]
                                            *scores = "scores",        // [R·A], NaN: none
                                                *labels = "labels",    // [R]: 0, 1; 2: none
                                                    *cuts =
                                                        "cuts";  // [R]: bit 0 the prompt, bit 1 + a answer a
}  // namespace answer_names

/// One file of a dataset of prompts with answers.
class AnswerShard {
 public:
  AnswerShard(std::filesystem::path path, ShardEntry entry, std::int64_t first_record,
              const AnswerManifest &manifest);

  /// @throws Error (data)
  void check_place() const;
  ShardFile &file() { return file_; }
  const ShardFile &file() const { return file_; }
  /// Number of its first record in the dataset.
  std::int64_t first() const { return file_.first_record(); }

  /// Record `index` of this shard. @throws Error (data) naming a token that is not in the vocabulary
  AnswerRecord read(std::int64_t index);
  /// The same without tokens.
  AnswerRecord facts(std::int64_t index);
  AnswerLengths lengths(std::int64_t index);

 private:
  Hdf5Reader &opened() {
    return file_.opened([this](const Hdf5Reader &reader) { load_index(reader); });
  }
  void load_index(const Hdf5Reader &reader);

  ShardFile file_;
  std::int64_t vocabulary_;
  std::size_t answers_;
  std::vector<std::int64_t> offsets_;  // of the first token of each record, and of the end
  std::vector<std::int32_t> prompt_lengths_, answer_lengths_;
  std::vector<std::int64_t> prompt_keys_;
  std::vector<double> preferences_, scores_;
  std::vector<std::uint8_t> labels_, cuts_;
};

}  // namespace bireme
