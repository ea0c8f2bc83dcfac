#include "core/data/token_dataset.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <mutex>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/dataset_folder.h"
#include "core/data/token_shard.h"
#include "core/data/token_writer.h"

namespace bireme {

struct TokenDataset::Implementation {
  std::filesystem::path folder;
  TokenManifest manifest;
  std::string fingerprint;
  std::mutex mutex;
  ShardList<TokenShard> shards;

  /// Adds what one shard holds of tokens [begin, end) of the stream.
  static void read(TokenShard& shard, std::int64_t begin, std::int64_t end, TokenRun& run) {
    const std::int64_t from = std::max(begin - shard.first(), std::int64_t{0}),
                       to = std::min(end - shard.first(), shard.tokens());
    const std::int64_t place = shard.first() - begin;  // of the shard's first token in the run
    shard.read(from, to, run.tokens.data() + place + from);
    if (!run.targets.empty()) shard.read_targets(from, to, run.targets.data() + place + from);
    if (from == 0 && shard.begins_document()) run.starts.push_back(place);
    // A document begins where another ends, unless that is the end of the shard: then the next one says so.
    const std::vector<std::int64_t>& ends = shard.document_ends();
    for (auto end_at = std::lower_bound(ends.begin(), ends.end(), std::max(from, std::int64_t{1}));
         end_at != ends.end() && *end_at < to; ++end_at)
      run.starts.push_back(place + *end_at);
  }
};

TokenDataset::TokenDataset(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}
TokenDataset::TokenDataset(TokenDataset&&) noexcept = default;
TokenDataset& TokenDataset::operator=(TokenDataset&&) noexcept = default;
TokenDataset::~TokenDataset() = default;

TokenDataset TokenDataset::open(const std::filesystem::path& folder) {
  const std::string text = read_manifest_text(folder, "bireme prepare text");
  auto self = std::make_unique<Implementation>();
  self->folder = folder;
  self->manifest = parse_token_manifest(text, (folder / DatasetManifest::kFile).string());
  self->fingerprint = checksum_bytes(text);
  refuse_unlisted_shards(folder, self->manifest);
  std::int64_t record = 0, token = 0;
  for (const ShardEntry& entry : self->manifest.shards) {
    TokenShard shard(folder / entry.file, entry, record, token, self->manifest);
    shard.check_place();
    self->shards.add(std::move(shard));
    record += entry.records;
    token += entry.tokens;
  }
  return TokenDataset(std::move(self));
}

const std::filesystem::path& TokenDataset::folder() const { return implementation_->folder; }
const TokenManifest& TokenDataset::manifest() const { return implementation_->manifest; }
const std::string& TokenDataset::fingerprint() const { return implementation_->fingerprint; }

std::shared_ptr<const Tokenizer> TokenDataset::tokenizer() const {
  if (manifest().tokenizer_kind.empty()) return nullptr;
  const std::filesystem::path path = folder() / kTokenizerFolder;
  std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(path.string());
  if (tokenizer->kind() != manifest().tokenizer_kind ||
      tokenizer->fingerprint() != manifest().tokenizer_fingerprint)
    throw Error(ErrorKind::data, "this is not the tokenizer that the dataset was made with", path.string(),
                "copy the dataset again, or rebuild it with `bireme prepare text`");
  return tokenizer;
}

TokenRun TokenDataset::read(std::int64_t begin, std::int64_t count) const {
  if (begin < 0 || count < 0 || begin > tokens() - count)
    throw Error(
        ErrorKind::data,
        fmt::format("there are no tokens {} to {}, the dataset has {}", begin, begin + count, tokens()),
        folder().string(), "the dataset is another one than before; use the one that the run began with");
  TokenRun run;
  run.tokens.resize(static_cast<std::size_t>(count));
  if (manifest().marks_targets) run.targets.resize(run.tokens.size());
  if (count == 0) return run;
  const std::lock_guard lock(implementation_->mutex);
  ShardList<TokenShard>& shards = implementation_->shards;
  for (std::size_t i = shards.index_of(begin);
       i < shards.shards().size() && shards.shards()[i].first() < begin + count; ++i)
    shards.with(i, [&](TokenShard& shard) {
      Implementation::read(shard, begin, begin + count, run);
      return true;
    });
  return run;
}

TokenDataset::Range TokenDataset::document(std::int64_t number) const {
  if (number < 0 || number >= documents())
    throw Error(ErrorKind::data,
                fmt::format("there is no document {}, the dataset has {}", number, documents()),
                folder().string(), "choose one of those");
  const std::lock_guard lock(implementation_->mutex);
  ShardList<TokenShard>& shards = implementation_->shards;
  // The end of a document by its number, in the shard that it ends in.
  const auto end_of = [&](std::int64_t wanted) {
    std::size_t i = 0;
    while (wanted >= shards.shards()[i].file().first_record() + shards.shards()[i].file().records()) ++i;
    return shards.with(i, [&](TokenShard& shard) {
      return shard.first() +
             shard.document_ends()[static_cast<std::size_t>(wanted - shard.file().first_record())];
    });
  };
  return {number == 0 ? 0 : end_of(number - 1), end_of(number)};
}

std::vector<std::string> TokenDataset::verify(
    const std::function<void(std::int64_t, std::int64_t)>& progress) const {
  std::vector<std::string> damaged = implementation_->shards.verify(progress);
  try {
    (void)tokenizer();
  } catch (const Error& error) {
    damaged.push_back(fmt::format("{}: {}", error.where(), error.problem()));
  }
  return damaged;
}

std::string describe(const TokenDataset& dataset) {
  const TokenManifest& manifest = dataset.manifest();
  std::int64_t bytes = 0;
  for (const ShardEntry& shard : manifest.shards) bytes += shard.bytes;
  std::string text =
      fmt::format("dataset of tokens, split `{}`: {}\n", manifest.split, dataset.folder().string());
  text += fmt::format("  tokens      {} in {} shards, {}\n", manifest.tokens, manifest.shards.size(),
                      readable_bytes(bytes));
  text += fmt::format("  documents   {}, of {:.1f} tokens on average\n", manifest.records,
                      static_cast<double>(manifest.tokens) / static_cast<double>(manifest.records));
  if (manifest.marks_targets) text += "  targets     only the tokens that are marked\n";
  text += fmt::format("  vocabulary  {} ids, document end {}\n", manifest.vocabulary,
                      manifest.document_end < 0 ? "none" : std::to_string(manifest.document_end));
  return text + (manifest.tokenizer_kind.empty()
                     ? std::string("  tokenizer   none: the tokens came ready-made\n")
                     : fmt::format("  tokenizer   {}, fingerprint {}\n", manifest.tokenizer_kind,
                                   manifest.tokenizer_fingerprint));
}

}  // namespace bireme
