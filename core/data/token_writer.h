#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/data/staged_dataset.h"
#include "core/text/tokenizer.h"

namespace bireme {

/// Where a dataset keeps the files of its tokenizer.
inline constexpr const char* kTokenizerFolder = "tokenizer";

/// Writes a dataset of tokens, document after document; shards cut the stream wherever they are full.
class TokenWriter {
 public:
  struct Options {
    std::filesystem::path output;
    std::string split = "train";
    std::int64_t shard_size = 1 << 24;  ///< tokens of a shard; held in memory while it fills
    std::int64_t vocabulary = 0;
    std::int32_t document_end = -1;                   ///< kept in the manifest; not added here
    std::shared_ptr<const Tokenizer> tokenizer = {};  ///< its files go with the dataset; may be null
    std::int64_t sequence_length = 0;                 ///< of every document; 0: they differ
    bool marks_targets = false;                       ///< say which tokens are to be predicted
    bool replace = false;                             ///< a dataset that stands at `output` makes way
  };
  /// @throws Error (usage) as StagedDataset
  explicit TokenWriter(Options options);

  /// Goes on with the document at hand.
  /// @param targets  where they are marked, 1 for each token that is to be predicted; else none
  /// @throws Error   (data) for an id beyond the vocabulary, with its number
  void append(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> targets = {});
  /// Ends it, if anything came since the last end.
  void end_document();
  /// Writes what is left and puts the folder in its place. @throws Error (data) when there is no token
  void finish();

  std::int64_t tokens() const { return manifest_.tokens + std::ssize(tokens_); }
  std::int64_t documents() const { return manifest_.records + std::ssize(document_ends_); }

 private:
  void write_shard();

  Options options_;
  StagedDataset folder_;
  TokenManifest manifest_;
  bool begins_document_ = true;  // the first token of the shard at hand
  bool is_open_ = false;         // a document has begun and not ended
  // The shard at hand.
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint8_t> targets_;
  std::vector<std::int64_t> document_ends_;
};

}  // namespace bireme
