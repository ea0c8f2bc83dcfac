#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/data/answer_dataset.h"
#include "core/data/staged_dataset.h"

namespace bireme {

/// Writes a dataset of prompts with answers, record after record.
class AnswerWriter {
 public:
  struct Options {
    std::filesystem::path output;
    std::int64_t shard_size = 1 << 14;  ///< records of a shard; held in memory while it fills
    /// Kind, split, vocabulary and everything else that is known before the first record.
    AnswerManifest manifest;
    std::shared_ptr<const Tokenizer> tokenizer;  ///< its files go with the dataset
    bool replace = false;                        ///< a dataset that stands at `output` makes way
  };
  /// @throws Error (usage) as StagedDataset
  explicit AnswerWriter(Options options);

  /// @throws Error (data) for an id beyond the vocabulary; the number of the record is not looked at
  void append(const AnswerRecord& record);
  /// Writes what is left and puts the folder in its place. @param counts  of what was left out on the way
  /// @throws Error (data) when there is no record
  AnswerManifest finish(const std::map<std::string, std::int64_t>& counts);

  /// Says in the manifest how conversations were written, once there was one.
  void set_chat_template(const std::string& name) { manifest_.chat_template = name; }

 private:
  void append_tokens(const std::vector<std::int32_t>& tokens);
  void write_shard();

  Options options_;
  StagedDataset folder_;
  AnswerManifest manifest_;
  std::vector<double> all_scores_;
  // The shard at hand.
  std::vector<std::int32_t> tokens_, prompt_lengths_, answer_lengths_;
  std::vector<std::int64_t> prompt_keys_;
  std::vector<double> preferences_, scores_;
  std::vector<std::uint8_t> labels_, cuts_;
};

}  // namespace bireme
