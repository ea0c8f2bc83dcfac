#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/data/manifest.h"
#include "core/text/tokenizer.h"

namespace bireme {

/// A stretch of the stream.
struct TokenRun {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> starts;  ///< places in `tokens` where a document begins, ascending
  /// 1 for each token that is to be predicted; empty where all are.
  std::vector<std::uint8_t> targets = {};
};

/// A folder of text made by `bireme prepare text`: dataset.json, shards in HDF5, and the tokenizer's files.
/// All documents, in their order, are one stream of tokens; token i is the same for everyone who opens the
/// folder. All methods are thread-safe; one reader at a time gets to the disk.
class TokenDataset {
 public:
  /// Opens the folder and checks what is cheap to check for all shards. @throws Error (data)
  static TokenDataset open(const std::filesystem::path& folder);

  TokenDataset(TokenDataset&&) noexcept;
  TokenDataset& operator=(TokenDataset&&) noexcept;
  ~TokenDataset();

  const std::filesystem::path& folder() const;
  const TokenManifest& manifest() const;
  std::int64_t tokens() const { return manifest().tokens; }
  std::int64_t documents() const { return manifest().records; }
  /// Changes whenever any token does; a checkpoint keeps it to notice that its data did.
  const std::string& fingerprint() const;
  /// The tokenizer that the dataset was made with; null for ready-made tokens.
  /// @throws Error (data) when its files are not those that the manifest speaks of
  std::shared_ptr<const Tokenizer> tokenizer() const;

  /// Tokens [begin, begin + count) of the stream, across shards. The checksum of a shard is compared when it
  /// is first read from. @throws Error (data) naming shard and remedy
  TokenRun read(std::int64_t begin, std::int64_t count) const;

  struct Range {
    std::int64_t begin, end;
  };
  /// Where a document lies in the stream.
  Range document(std::int64_t number) const;

  /// Compares the checksum of every shard and opens the tokenizer. Returns one line for each damage.
  std::vector<std::string> verify(
      const std::function<void(std::int64_t done, std::int64_t total)>& progress = {}) const;

 private:
  struct Implementation;
  explicit TokenDataset(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

/// What `bireme inspect` prints.
std::string describe(const TokenDataset& dataset);

}  // namespace bireme
