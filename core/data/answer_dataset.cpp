#include "core/data/answer_dataset.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/sha256.h"
#include "core/data/answer_shard.h"
#include "core/data/dataset_folder.h"
#include "core/data/token_writer.h"

namespace bireme {

struct AnswerDataset::Implementation {
  std::filesystem::path folder;
  AnswerManifest manifest;
  std::string fingerprint, sha256;
  std::mutex mutex;
  ShardList<AnswerShard> shards;

  /// Runs `use` on the shard of a record and its index there.
  template <class Use>
  auto with(std::int64_t number, const Use& use) {
    if (number < 0 || number >= manifest.records)
      throw Error(
          ErrorKind::data, fmt::format("there is no record {}, the dataset has {}", number, manifest.records),
          folder.string(), "the dataset is another one than before; use the one that the run began with");
    const std::lock_guard lock(mutex);
    return shards.with(shards.index_of(number),
                       [&](AnswerShard& shard) { return use(shard, number - shard.first()); });
  }
  AnswerRecord facts(std::int64_t number) {
    return with(number, [](AnswerShard& shard, std::int64_t index) { return shard.facts(index); });
  }
  [[noreturn]] void lacks(std::int64_t number, const std::string& what) const {
    throw Error(ErrorKind::data, fmt::format("record {} has {}", number, what), folder.string(),
                manifest.answer_kind == AnswerKind::pairs
                    ? "make single answers of the pairs with `bireme prepare feedback --from-pairs`"
                    : "make the dataset with `bireme prepare feedback` from records that have it");
  }
};

AnswerDataset::AnswerDataset(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}
AnswerDataset::AnswerDataset(AnswerDataset&&) noexcept = default;
AnswerDataset& AnswerDataset::operator=(AnswerDataset&&) noexcept = default;
AnswerDataset::~AnswerDataset() = default;

namespace {

/// A dataset of another kind than is asked for.
[[noreturn]] void refuse_kind(const std::filesystem::path& folder, const std::string& kind,
                              std::initializer_list<AnswerKind> accepted) {
  const AnswerKind wanted = *accepted.begin();
  std::string remedy = fmt::format("make the right one with `bireme prepare {}`", to_string(wanted));
  if (kind == "pairs" && wanted == AnswerKind::feedback) remedy += " (--from-pairs takes the same files)";
  if (kind == "feedback" && wanted == AnswerKind::pairs) remedy += " (--from-feedback takes the same files)";
  throw Error(ErrorKind::data, fmt::format("the dataset holds {}, not {}", kind, to_string(wanted)),
              folder.string(), remedy);
}

}  // namespace

AnswerDataset AnswerDataset::open(const std::filesystem::path& folder,
                                  std::initializer_list<AnswerKind> accepted) {
  const std::string text =
      read_manifest_text(folder, fmt::format("bireme prepare {}", to_string(*accepted.begin())));
  const std::string where = (folder / DatasetManifest::kFile).string(),
                    kind = parse_manifest_kind(text, where);
  if (std::ranges::none_of(accepted, [&](AnswerKind one) { return kind == to_string(one); }))
    refuse_kind(folder, kind, accepted);
  auto self = std::make_unique<Implementation>();
  self->folder = folder;
  self->manifest = parse_answer_manifest(text, where);
  self->fingerprint = checksum_bytes(text);
  self->sha256 = sha256_text(text);
  refuse_unlisted_shards(folder, self->manifest);
  std::int64_t record = 0;
  for (const ShardEntry& entry : self->manifest.shards) {
    AnswerShard shard(folder / entry.file, entry, record, self->manifest);
    shard.check_place();
    self->shards.add(std::move(shard));
    record += entry.records;
  }
  return AnswerDataset(std::move(self));
}

const std::filesystem::path& AnswerDataset::folder() const { return implementation_->folder; }
const AnswerManifest& AnswerDataset::manifest() const { return implementation_->manifest; }
const std::string& AnswerDataset::fingerprint() const { return implementation_->fingerprint; }
const std::string& AnswerDataset::manifest_sha256() const { return implementation_->sha256; }

std::shared_ptr<const Tokenizer> AnswerDataset::tokenizer() const {
  const std::filesystem::path path = folder() / kTokenizerFolder;
  std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(path.string());
  if (tokenizer->kind() != manifest().tokenizer_kind ||
      tokenizer->fingerprint() != manifest().tokenizer_fingerprint)
    throw Error(
        ErrorKind::data, "this is not the tokenizer that the dataset was made with", path.string(),
        fmt::format("copy the dataset again, or rebuild it with `bireme prepare {}`", to_string(kind())));
  return tokenizer;
}

AnswerRecord AnswerDataset::read(std::int64_t number) const {
  return implementation_->with(number,
                               [](AnswerShard& shard, std::int64_t index) { return shard.read(index); });
}

AnswerLengths AnswerDataset::lengths(std::int64_t number) const {
  return implementation_->with(number,
                               [](AnswerShard& shard, std::int64_t index) { return shard.lengths(index); });
}

std::uint64_t AnswerDataset::prompt_key(std::int64_t number) const {
  return implementation_->facts(number).prompt_key;
}

double AnswerDataset::preference(std::int64_t number) const {
  return implementation_->facts(number).preference;
}

bool AnswerDataset::is_cut(std::int64_t number) const {
  const std::vector<bool> cut = implementation_->facts(number).is_cut;
  return std::ranges::find(cut, true) != cut.end();
}

ScoreStatistics AnswerDataset::score_statistics() const {
  const AnswerManifest& m = manifest();
  if (m.scores > 0) return {.count = m.scores, .mean = m.score_mean, .deviation = m.score_deviation};
  const std::int64_t labels = m.likes + m.dislikes;
  if (labels == 0) return {};
  const double share = static_cast<double>(m.likes) / static_cast<double>(labels);
  return {.count = labels, .mean = share, .deviation = std::sqrt(share * (1 - share))};
}

double AnswerDataset::score(std::int64_t number) const {
  const AnswerRecord facts = implementation_->facts(number);
  if (kind() == AnswerKind::feedback) {
    if (!std::isnan(facts.scores.front())) return facts.scores.front();
    if (manifest().scores == 0 && facts.label) return *facts.label ? 1 : 0;
  }
  implementation_->lacks(number, "no score of a single answer");
}

bool AnswerDataset::label(std::int64_t number) const {
  const AnswerRecord facts = implementation_->facts(number);
  if (kind() == AnswerKind::feedback) {
    if (facts.label) return *facts.label;
    if (!std::isnan(facts.scores.front())) return facts.scores.front() > manifest().score_mean;
  }
  implementation_->lacks(number, "neither label nor score of a single answer");
}

AnswerDataset::LabelCounts AnswerDataset::label_counts() const {
  if (manifest().likes + manifest().dislikes == size()) return {manifest().likes, manifest().dislikes};
  LabelCounts counts;
  for (std::int64_t i = 0; i < size(); ++i) ++(label(i) ? counts.likes : counts.dislikes);
  return counts;
}

std::vector<std::string> AnswerDataset::verify(
    const std::function<void(std::int64_t, std::int64_t)>& progress) const {
  std::vector<std::string> damaged = implementation_->shards.verify(progress);
  try {
    (void)tokenizer();
  } catch (const Error& error) {
    damaged.push_back(fmt::format("{}: {}", error.where(), error.problem()));
  }
  return damaged;
}

namespace {

/// The beginning of a text on one line, cut between characters.
std::string shown(const std::string& text) {
  constexpr std::size_t longest = 200;
  std::string line;
  for (const char c : text) {
    if (line.size() >= longest && (static_cast<unsigned char>(c) & 0xC0) != 0x80) return line + "…";
    line += c == '\n' ? std::string("⏎") : std::string(1, c);
  }
  return line;
}

}  // namespace

std::string describe(const AnswerDataset& dataset) {
  const AnswerManifest& m = dataset.manifest();
  std::int64_t bytes = 0;
  for (const ShardEntry& shard : m.shards) bytes += shard.bytes;
  std::string text = fmt::format("dataset of {}, split `{}`, prompts of part `{}`: {}\n", m.kind, m.split,
                                 m.part, dataset.folder().string());
  text +=
      fmt::format("  records     {} in {} shards, {}\n", m.records, m.shards.size(), readable_bytes(bytes));
  text += fmt::format("  tokens      {}, {} of them in answers; at most {} a record (truncation: {})\n",
                      m.tokens, m.answer_tokens, m.max_length, to_string(m.truncation));
  text += fmt::format("  vocabulary  {} ids, answers end in {}\n", m.vocabulary,
                      m.end < 0 ? "nothing of their own" : std::to_string(m.end));
  text += fmt::format("  tokenizer   {}, fingerprint {}\n", m.tokenizer_kind, m.tokenizer_fingerprint);
  if (!m.chat_template.empty()) text += fmt::format("  template    {}\n", m.chat_template);
  if (m.likes + m.dislikes > 0)
    text += fmt::format("  labels      {} likes, {} dislikes\n", m.likes, m.dislikes);
  if (m.scores > 0)
    text += fmt::format("  scores      {}, mean {:.4g}, deviation {:.4g}\n", m.scores, m.score_mean,
                        m.score_deviation);
  std::string counts;
  for (const auto& [name, count] : m.counts)
    if (count > 0) counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", name, count);
  if (!counts.empty()) text += fmt::format("  on the way  {}\n", counts);
  const std::shared_ptr<const Tokenizer> tokenizer = dataset.tokenizer();
  const AnswerRecord first = dataset.read(0);
  text += fmt::format("  record 0    prompt:   {}\n", shown(tokenizer->decode(first.prompt)));
  const char* const names[] = {m.answer_kind == AnswerKind::pairs ? "chosen:  " : "answer:  ", "rejected:"};
  for (std::size_t a = 0; a < first.answers.size(); ++a)
    text += fmt::format("              {} {}\n", names[a], shown(tokenizer->decode(first.answers[a])));
  return text;
}

}  // namespace bireme
