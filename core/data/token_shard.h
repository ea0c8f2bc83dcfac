#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/data/shard_file.h"

namespace bireme {

// Names in a shard of tokens, beside those of every shard: the tokens (uint16 where the vocabulary fits, else
// uint32); how many tokens of the shard come before the end of each document that ends in it. Attributes: the
// number of its first token in the dataset; 1 when that token begins a document. Where the manifest says so,
// also a byte for each token, 1 when it is to be predicted.
namespace shard_names {
inline constexpr const char *tokens = "tokens", *document_ends = "document_ends", *targets = "targets",
                            *first_token = "first_token", *begins_document = "begins_document";
}  // namespace shard_names

/// One file of a stream of tokens.
class TokenShard {
 public:
  TokenShard(std::filesystem::path path, ShardEntry entry, std::int64_t first_record,
             std::int64_t first_token, const TokenManifest& manifest);

  /// @throws Error (data)
  void check_place() const;
  ShardFile& file() { return file_; }
  const ShardFile& file() const { return file_; }
  /// Number of its first token in the dataset.
  std::int64_t first() const { return first_token_; }
  std::int64_t tokens() const { return file_.entry().tokens; }

  /// Tokens [begin, end) of this shard. @throws Error (data) naming one that is not in the vocabulary
  void read(std::int64_t begin, std::int64_t end, std::int32_t* into);
  /// Which of these tokens are to be predicted. Only where the manifest says that targets are marked.
  void read_targets(std::int64_t begin, std::int64_t end, std::uint8_t* into);
  /// True when its first token begins a document.
  bool begins_document();
  /// Where the documents that end in this shard end: counts of tokens from its first on, ascending.
  const std::vector<std::int64_t>& document_ends();

 private:
  Hdf5Reader& opened() {
    return file_.opened([this](const Hdf5Reader& reader) { load_index(reader); });
  }
  void load_index(const Hdf5Reader& reader);

  ShardFile file_;
  std::int64_t first_token_, vocabulary_;
  bool marks_targets_;
  bool begins_document_ = false;
  std::vector<std::int64_t> document_ends_;
};

}  // namespace bireme
