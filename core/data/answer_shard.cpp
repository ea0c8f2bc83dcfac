#include "core/data/answer_shard.h"

#include <spdlog/fmt/fmt.h>

namespace bireme {

AnswerShard::AnswerShard(std::filesystem::path path, ShardEntry entry, std::int64_t first_record,
                         const AnswerManifest& manifest)
    : file_(std::move(path), std::move(entry), first_record, to_string(manifest.answer_kind)),
      vocabulary_(manifest.vocabulary),
      answers_(static_cast<std::size_t>(manifest.answers())) {}

void AnswerShard::check_place() const {
  const Hdf5Reader reader = file_.check_place();
  const Shape shape = reader.shape(answer_names::tokens);
  if (shape.rank() != 1 || shape.front() != file_.entry().tokens)
    file_.fail(
        fmt::format("the shard has tokens {}, the manifest says {}", to_string(shape), file_.entry().tokens));
}

void AnswerShard::load_index(const Hdf5Reader& reader) {
  const DType type = reader.dtype(answer_names::tokens);
  if (type != DType::i32 && type != DType::i64) file_.fail("its tokens are not integers");
  const auto records = static_cast<std::size_t>(file_.records());
  const auto list = [&]<class T>(std::vector<T>& values, const char* name, std::size_t count) {
    values = read_shard_list<T>(reader, name);
    if (values.size() != count)
      file_.fail(fmt::format("`{}` has {} entries for {} records", name, values.size(), records));
  };
  list(prompt_lengths_, answer_names::prompt_lengths, records);
  list(answer_lengths_, answer_names::answer_lengths, records * answers_);
  list(prompt_keys_, answer_names::prompt_keys, records);
  list(preferences_, answer_names::preferences, records);
  list(scores_, answer_names::scores, records * answers_);
  list(labels_, answer_names::labels, records);
  list(cuts_, answer_names::cuts, records);
  offsets_.assign(1, 0);
  for (std::size_t i = 0; i < records; ++i) {
    std::int64_t length = prompt_lengths_[i];
    if (length < 0) file_.fail(fmt::format("the prompt of record {} has {} tokens", i, length));
    for (std::size_t a = 0; a < answers_; ++a) {
      const std::int32_t answer = answer_lengths_[i * answers_ + a];
      if (answer < 1) file_.fail(fmt::format("an answer of record {} has {} tokens", i, answer));
      length += answer;
    }
    offsets_.push_back(offsets_.back() + length);
  }
  if (offsets_.back() != file_.entry().tokens)
    file_.fail(fmt::format("its records have {} tokens, the manifest says {}", offsets_.back(),
                           file_.entry().tokens));
}

AnswerRecord AnswerShard::facts(std::int64_t index) {
  if (!file_.is_verified()) opened();
  const auto i = static_cast<std::size_t>(index);
  AnswerRecord record;
  record.number = first() + index;
  record.preference = preferences_[i];
  record.scores.assign(scores_.begin() + static_cast<std::ptrdiff_t>(i * answers_),
                       scores_.begin() + static_cast<std::ptrdiff_t>((i + 1) * answers_));
  if (labels_[i] < 2) record.label = labels_[i] == 1;
  record.prompt_key = static_cast<std::uint64_t>(prompt_keys_[i]);
  record.is_prompt_cut = (cuts_[i] & 1) != 0;
  for (std::size_t a = 0; a < answers_; ++a) record.is_cut.push_back((cuts_[i] >> (a + 1) & 1) != 0);
  return record;
}

AnswerLengths AnswerShard::lengths(std::int64_t index) {
  if (!file_.is_verified()) opened();
  const auto i = static_cast<std::size_t>(index);
  AnswerLengths lengths{.prompt = prompt_lengths_[i], .answers = {}};
  for (std::size_t a = 0; a < answers_; ++a) lengths.answers.push_back(answer_lengths_[i * answers_ + a]);
  return lengths;
}

AnswerRecord AnswerShard::read(std::int64_t index) {
  Hdf5Reader& reader = opened();
  AnswerRecord record = facts(index);
  const auto i = static_cast<std::size_t>(index);
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor values = reader.read(answer_names::tokens, offsets_[i], offsets_[i + 1], *memory);
  std::vector<std::int32_t> tokens;
  tokens.reserve(static_cast<std::size_t>(values.elements()));
  const auto take = [&]<class T>(std::span<const T> stored) {
    for (const T token : stored) {
      if (token < 0 || token >= vocabulary_)
        file_.fail(fmt::format("record {} has token {}, beyond the vocabulary of {}", record.number, token,
                               vocabulary_));
      tokens.push_back(static_cast<std::int32_t>(token));
    }
  };
  if (values.dtype() == DType::i32)
    take(std::span<const std::int32_t>(values.values<std::int32_t>()));
  else
    take(std::span<const std::int64_t>(values.values<std::int64_t>()));
  auto next = tokens.begin() + prompt_lengths_[i];
  record.prompt.assign(tokens.begin(), next);
  for (std::size_t a = 0; a < answers_; ++a) {
    const auto end = next + answer_lengths_[i * answers_ + a];
    record.answers.emplace_back(next, end);
    next = end;
  }
  return record;
}

}  // namespace bireme
