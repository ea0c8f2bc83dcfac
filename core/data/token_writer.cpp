#include "core/data/token_writer.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cassert>

#include "core/base/error.h"
#include "core/data/token_shard.h"

namespace bireme {

namespace {

// A read takes a sequence of some thousand tokens, which is a part of one chunk or of two.
constexpr std::int64_t kChunkTokens = 1 << 15;

/// The library may report success although the disk was full, so what was written is read back.
void read_back(const std::filesystem::path& path, const std::vector<std::int32_t>& expected,
               const std::vector<std::uint8_t>& targets) {
  const Hdf5Reader reader(path);
  const std::shared_ptr<Memory> memory = make_host_memory();
  reader.read(shard_names::document_ends, *memory);
  bool is_same = true;
  if (!targets.empty()) {
    std::vector<std::uint8_t> marks(targets.size());
    reader.read_bytes(shard_names::targets, 0, std::ssize(marks), marks.data());
    is_same = marks == targets;
  }
  for (std::int64_t begin = 0; begin < std::ssize(expected); begin += kChunkTokens) {
    const std::int64_t end = std::min(begin + kChunkTokens, static_cast<std::int64_t>(expected.size()));
    const Tensor part = reader.read(shard_names::tokens, begin, end, *memory);
    const auto compare = [&]<class T>(std::span<const T> values) {
      return std::equal(values.begin(), values.end(), expected.begin() + begin);
    };
    is_same = is_same && (part.dtype() == DType::i32
                              ? compare(std::span<const std::int32_t>(part.values<std::int32_t>()))
                              : compare(std::span<const std::int64_t>(part.values<std::int64_t>())));
  }
  if (!is_same)
    throw Error(ErrorKind::checkpoint, "the shard does not read back as it was written", path.string(),
                "check the disk's space and health, then start again");
}

}  // namespace

TokenWriter::TokenWriter(Options options)
    : options_(std::move(options)),
      folder_({.output = options_.output, .shard_size = options_.shard_size, .replace = options_.replace}) {
  manifest_.kind = "tokens";
  manifest_.split = options_.split;
  manifest_.vocabulary = options_.vocabulary;
  manifest_.document_end = options_.document_end;
  manifest_.sequence_length = options_.sequence_length;
  manifest_.marks_targets = options_.marks_targets;
  if (!options_.tokenizer) return;
  manifest_.tokenizer_kind = options_.tokenizer->kind();
  manifest_.tokenizer_fingerprint = options_.tokenizer->fingerprint();
  std::filesystem::create_directory(folder_.path() / kTokenizerFolder);
  options_.tokenizer->save(folder_.path() / kTokenizerFolder);
}

void TokenWriter::append(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> targets) {
  assert(targets.size() == (options_.marks_targets ? tokens.size() : 0));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= options_.vocabulary)
      throw Error(ErrorKind::data,
                  fmt::format("token {} is {}, beyond the vocabulary of {}",
                              this->tokens() + static_cast<std::int64_t>(i), tokens[i], options_.vocabulary),
                  options_.output.string(), "give the vocabulary that the tokens were made with");
  is_open_ = is_open_ || !tokens.empty();
  while (!tokens.empty()) {
    if (std::ssize(tokens_) == options_.shard_size) write_shard();
    const auto room = static_cast<std::size_t>(options_.shard_size - std::ssize(tokens_));
    const std::size_t count = std::min(room, tokens.size());
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(count));
    tokens = tokens.subspan(count);
    if (!options_.marks_targets) continue;
    targets_.insert(targets_.end(), targets.begin(), targets.begin() + static_cast<std::ptrdiff_t>(count));
    targets = targets.subspan(count);
  }
}

void TokenWriter::end_document() {
  if (is_open_) document_ends_.push_back(std::ssize(tokens_));
  is_open_ = false;
}

void TokenWriter::write_shard() {
  const std::int64_t tokens = std::ssize(tokens_), records = std::ssize(document_ends_);
  const std::filesystem::path path = folder_.next_shard();
  const std::shared_ptr<Memory> memory = make_host_memory();
  const int token_bytes = options_.vocabulary <= 1 << 16 ? 2 : 4;
  {
    Hdf5Writer writer(path, tokens * token_bytes + std::ssize(targets_) + records * 8);
    writer.create_unsigned(shard_names::tokens, token_bytes, {tokens}, kChunkTokens);
    writer.write(shard_names::tokens, 0, tensor_of(*memory, tokens_, {tokens}));
    if (!targets_.empty()) {
      writer.create(shard_names::targets, DType::u8, {tokens}, kChunkTokens);
      writer.write_bytes(shard_names::targets, 0, targets_.data(), tokens);
    }
    writer.write(shard_names::document_ends, tensor_of(*memory, document_ends_, {records}));
    writer.attribute("", shard_names::first_token, manifest_.tokens);
    writer.attribute("", shard_names::begins_document, std::int64_t{begins_document_});
    folder_.finish_shard(
        writer, {.file = {}, .records = records, .tokens = tokens, .bytes = 0, .checksum = {}}, manifest_);
  }
  read_back(path, tokens_, targets_);
  manifest_.tokens += tokens;
  begins_document_ = records > 0 && document_ends_.back() == tokens;
  tokens_.clear();
  targets_.clear();
  document_ends_.clear();
}

void TokenWriter::finish() {
  end_document();
  if (!tokens_.empty()) write_shard();
  if (manifest_.tokens == 0)
    throw Error(ErrorKind::data, "no token is left for the dataset", options_.output.string(),
                "give text that is not empty");
  folder_.commit(to_json(manifest_));
}

}  // namespace bireme
