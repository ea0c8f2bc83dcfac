#include "core/data/answer_writer.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>

#include "core/base/error.h"
#include "core/data/answer_shard.h"
#include "core/data/token_writer.h"

namespace bireme {

namespace {

// A record is some hundred tokens: a read takes a part of one chunk, or of two.
constexpr std::int64_t kAnswerChunkTokens = 1 << 13;

}  // namespace

AnswerWriter::AnswerWriter(Options options)
    : options_(std::move(options)),
      folder_({.output = options_.output, .shard_size = options_.shard_size, .replace = options_.replace}),
      manifest_(options_.manifest) {
  manifest_.kind = to_string(manifest_.answer_kind);
  manifest_.tokenizer_kind = options_.tokenizer->kind();
  manifest_.tokenizer_fingerprint = options_.tokenizer->fingerprint();
  std::filesystem::create_directory(folder_.path() / kTokenizerFolder);
  options_.tokenizer->save(folder_.path() / kTokenizerFolder);
}

void AnswerWriter::append_tokens(const std::vector<std::int32_t>& tokens) {
  for (const std::int32_t token : tokens)
    if (token < 0 || token >= manifest_.vocabulary)
      throw Error(ErrorKind::data,
                  fmt::format("record {} has token {}, beyond the vocabulary of {}",
                              manifest_.records + std::ssize(prompt_lengths_), token, manifest_.vocabulary),
                  options_.output.string(), "give the tokenizer that the tokens were made with");
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void AnswerWriter::append(const AnswerRecord& record) {
  append_tokens(record.prompt);
  for (const std::vector<std::int32_t>& answer : record.answers) {
    append_tokens(answer);
    answer_lengths_.push_back(static_cast<std::int32_t>(answer.size()));
    manifest_.answer_tokens += std::ssize(answer);
  }
  prompt_lengths_.push_back(static_cast<std::int32_t>(record.prompt.size()));
  prompt_keys_.push_back(static_cast<std::int64_t>(record.prompt_key));
  preferences_.push_back(record.preference);
  scores_.insert(scores_.end(), record.scores.begin(), record.scores.end());
  for (const double score : record.scores)
    if (!std::isnan(score)) all_scores_.push_back(score);
  labels_.push_back(!record.label ? 2 : *record.label ? 1 : 0);
  if (record.label) ++(*record.label ? manifest_.likes : manifest_.dislikes);
  std::uint8_t cuts = record.is_prompt_cut ? 1 : 0;
  for (std::size_t a = 0; a < record.is_cut.size(); ++a)
    if (record.is_cut[a]) cuts = static_cast<std::uint8_t>(cuts | 2u << a);
  cuts_.push_back(cuts);
  if (std::ssize(prompt_lengths_) == options_.shard_size) write_shard();
}

void AnswerWriter::write_shard() {
  const std::int64_t tokens = std::ssize(tokens_), records = std::ssize(prompt_lengths_);
  const std::filesystem::path path = folder_.next_shard();
  const std::shared_ptr<Memory> memory = make_host_memory();
  const int token_bytes = manifest_.vocabulary <= 1 << 16 ? 2 : 4;
  {
    Hdf5Writer writer(path, tokens * token_bytes + records * 64);
    writer.create_unsigned(answer_names::tokens, token_bytes, {tokens}, kAnswerChunkTokens);
    writer.write(answer_names::tokens, 0, tensor_of(*memory, tokens_, {tokens}));
    const auto list = [&](const char* name, const auto& values) {
      writer.write(name, tensor_of(*memory, values, {std::ssize(values)}));
    };
    list(answer_names::prompt_lengths, prompt_lengths_);
    list(answer_names::answer_lengths, answer_lengths_);
    list(answer_names::prompt_keys, prompt_keys_);
    list(answer_names::preferences, preferences_);
    list(answer_names::scores, scores_);
    list(answer_names::labels, labels_);
    list(answer_names::cuts, cuts_);
    folder_.finish_shard(
        writer, {.file = {}, .records = records, .tokens = tokens, .bytes = 0, .checksum = {}}, manifest_);
  }
  // The library may report success although the disk was full, so what was written is read back.
  AnswerShard shard(path, manifest_.shards.back(), manifest_.records - records, manifest_);
  shard.check_place();
  std::int64_t next = 0;
  for (std::int64_t i = 0; i < records; ++i) {
    const AnswerRecord stored = shard.read(i);
    bool is_same = std::equal(stored.prompt.begin(), stored.prompt.end(), tokens_.begin() + next);
    next += std::ssize(stored.prompt);
    for (const std::vector<std::int32_t>& answer : stored.answers) {
      is_same = is_same && std::equal(answer.begin(), answer.end(), tokens_.begin() + next);
      next += std::ssize(answer);
    }
    if (!is_same)
      throw Error(ErrorKind::checkpoint, "the shard does not read back as it was written", path.string(),
                  "check the disk's space and health, then start again");
  }
  manifest_.tokens += tokens;
  tokens_.clear();
  prompt_lengths_.clear();
  answer_lengths_.clear();
  prompt_keys_.clear();
  preferences_.clear();
  scores_.clear();
  labels_.clear();
  cuts_.clear();
}

AnswerManifest AnswerWriter::finish(const std::map<std::string, std::int64_t>& counts) {
  if (!prompt_lengths_.empty()) write_shard();
  if (manifest_.records == 0) {
    std::string left_out;
    for (const auto& [name, count] : counts)
      if (count > 0) left_out += fmt::format("{}{} {}", left_out.empty() ? "" : ", ", count, name);
    throw Error(ErrorKind::data,
                left_out.empty() ? "no record is left for the dataset"
                                 : fmt::format("no record is left for the dataset ({})", left_out),
                options_.output.string(), "give records that can be used");
  }
  manifest_.counts = counts;
  manifest_.scores = std::ssize(all_scores_);
  if (manifest_.scores > 0) {
    const auto n = static_cast<double>(all_scores_.size());
    double sum = 0, squares = 0;
    for (const double score : all_scores_) sum += score;
    manifest_.score_mean = sum / n;
    for (const double score : all_scores_)
      squares += (score - manifest_.score_mean) * (score - manifest_.score_mean);
    manifest_.score_deviation = std::sqrt(squares / n);
  }
  folder_.commit(to_json(manifest_));
  return manifest_;
}

}  // namespace bireme
