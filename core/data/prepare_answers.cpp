#include "core/data/prepare_answers.h"

#include <algorithm>
#include <exception>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "core/base/files.h"
#include "core/base/json.h"
#include "core/data/answer_writer.h"

namespace bireme {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kBlockRecords = 4096;  // tokenized side by side

/// Reads, converts, tokenizes block by block, and writes.
class AnswerPreparation {
 public:
  explicit AnswerPreparation(const PrepareAnswersOptions& options)
      : options_(options), lines_(options.lines), writer_(writer_options(options)) {}

  PrepareAnswersReport run() {
    if (options_.progress) options_.progress(0, lines_.bytes_total(), 0);
    const bool makes_pairs =
        options_.kind == AnswerKind::pairs && options_.lines.kind == AnswerKind::feedback;
    std::vector<AnswerText> singles;
    while (std::optional<AnswerText> record = lines_.next()) {
      if (!is_wanted(*record)) continue;
      if (makes_pairs)
        singles.push_back(std::move(*record));
      else
        add(*record);
    }
    for (AnswerText& pair : pairs_of(singles, options_.min_margin, counts_)) {
      if (pair.answers[0] == pair.answers[1])
        ++counts_["identical"];
      else
        block_.push_back(std::move(pair));
      if (block_.size() >= kBlockRecords) flush();
    }
    flush();
    if (lines_.bad_lines() > 0) counts_["bad"] = lines_.bad_lines();
    if (has_chat_ && options_.tokens.chat_template)
      writer_.set_chat_template(options_.tokens.chat_template->name());
    return {.manifest = writer_.finish(counts_), .first_bad_lines = lines_.first_bad_lines()};
  }

 private:
  static AnswerWriter::Options writer_options(const PrepareAnswersOptions& options) {
    AnswerManifest manifest;
    manifest.answer_kind = options.kind;
    manifest.split = options.split;
    const Tokenizer& tokenizer = *options.tokens.tokenizer;
    manifest.vocabulary = tokenizer.vocabulary();
    manifest.begin = tokenizer.special().adds_begin ? tokenizer.special().begin : -1;
    manifest.end = options.tokens.end;
    manifest.max_length = options.tokens.max_length;
    manifest.truncation = options.tokens.truncation;
    manifest.part = to_string(options.part);
    return {.output = options.output,
            .shard_size = options.shard_size,
            .manifest = std::move(manifest),
            .tokenizer = options.tokens.tokenizer,
            .replace = options.replace};
  }

  bool is_wanted(AnswerText& record) {
    if (options_.part != PromptPart::all && part_of(prompt_key(record.prompt)) != options_.part) {
      ++counts_["other_parts"];
      return false;
    }
    using State = AnswerText::State;
    if (record.state == State::identical) ++counts_["identical"];
    if (record.state == State::empty) ++counts_["empty"];
    if (record.state == State::empty || (record.state == State::identical && !options_.keep_identical))
      return false;
    if (record.has_later_turns) ++counts_["later_turns"];
    if (!record.preference) return true;
    if (*record.preference == 0.5) {
      ++counts_["ties"];
      return !options_.drop_ties;
    }
    if (*record.preference < 0.5) {  // the raters chose the other one
      ++counts_["swapped"];
      std::swap(record.answers[0], record.answers[1]);
      std::swap(record.scores[0], record.scores[1]);
      record.preference = 1 - *record.preference;
    }
    return true;
  }

  void add(AnswerText& record) {
    if (options_.lines.kind == AnswerKind::pairs && options_.kind == AnswerKind::feedback) {
      for (AnswerText& single : singles_of(record)) block_.push_back(std::move(single));
    } else if (options_.kind == AnswerKind::sft) {
      record.answers.resize(1);
      record.scores = {std::nullopt};
      record.preference.reset();
      record.label.reset();
      block_.push_back(std::move(record));
    } else {
      block_.push_back(std::move(record));
    }
    if (block_.size() >= kBlockRecords) flush();
  }

  void flush() {
    std::vector<std::optional<AnswerRecord>> records(block_.size());
    std::vector<Counts> counts(block_.size());
    std::vector<std::exception_ptr> failures(block_.size());
#pragma omp parallel for schedule(dynamic, 16)
    for (std::size_t i = 0; i < block_.size(); ++i) {
      try {
        records[i] = tokenize_answers(block_[i], options_.tokens, counts[i]);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    }
    for (std::size_t i = 0; i < block_.size(); ++i) {
      if (failures[i]) std::rethrow_exception(failures[i]);
      has_chat_ = has_chat_ || block_[i].prompt.is_chat || options_.tokens.as_chat;
      for (const auto& [name, count] : counts[i]) counts_[name] += count;
      if (const std::optional<AnswerRecord>& record = records[i]) {
        writer_.append(*record);
        ++written_;
      }
    }
    block_.clear();
    if (options_.progress) options_.progress(lines_.bytes_done(), lines_.bytes_total(), written_);
  }

  const PrepareAnswersOptions& options_;
  AnswerLines lines_;
  AnswerWriter writer_;
  Counts counts_;
  std::vector<AnswerText> block_;
  bool has_chat_ = false;  // some record was written down by the chat template
  std::int64_t written_ = 0;
};

double value_of(const AnswerText& single) {
  return single.scores[0].value_or(single.label.value_or(false) ? 1 : 0);
}

}  // namespace

std::vector<AnswerText> singles_of(const AnswerText& pair) {
  std::vector<AnswerText> singles(2, pair);
  for (std::size_t a = 0; a < 2; ++a) {
    singles[a].answers = {pair.answers[a]};
    singles[a].label = a == 0;
    singles[a].scores = {pair.scores[a].value_or(a == 0 ? 1 : 0)};
    singles[a].preference.reset();
  }
  return singles;
}

std::vector<AnswerText> pairs_of(const std::vector<AnswerText>& singles, double min_margin, Counts& counts) {
  std::vector<std::vector<const AnswerText*>> groups;
  std::map<std::uint64_t, std::size_t> group_of;
  for (const AnswerText& single : singles) {
    const auto [place, is_new] = group_of.try_emplace(prompt_key(single.prompt), groups.size());
    if (is_new) groups.emplace_back();
    groups[place->second].push_back(&single);
  }
  std::vector<AnswerText> pairs;
  for (std::vector<const AnswerText*>& group : groups) {
    std::ranges::stable_sort(group, std::greater{}, [](const AnswerText* one) { return value_of(*one); });
    const std::size_t half = (group.size() + 1) / 2;
    if (group.size() == 1) ++counts["single_answers"];
    for (std::size_t i = 0; i + half < group.size(); ++i) {
      const AnswerText &chosen = *group[i], &rejected = *group[i + half];
      const double margin = value_of(chosen) - value_of(rejected);
      if (margin <= 0 || margin < min_margin) {
        ++counts["too_close"];
        continue;
      }
      AnswerText pair = chosen;
      pair.answers = {chosen.answers[0], rejected.answers[0]};
      pair.scores = {value_of(chosen), value_of(rejected)};
      pair.label.reset();
      pairs.push_back(std::move(pair));
    }
  }
  return pairs;
}

std::int32_t find_end_token(const Tokenizer& tokenizer, const fs::path& path) {
  if (tokenizer.special().document_end >= 0) return tokenizer.special().document_end;
  const fs::path config = (fs::is_directory(path) ? path : path.parent_path()) / "config.json";
  if (!fs::is_regular_file(config)) return -1;
  const auto json = try_parse_json(read_file(config, 1 << 20, ErrorKind::data));
  if (!json.is_object() || !json.contains("eos_token_id")) return -1;
  const auto& id = json["eos_token_id"].is_array() && !json["eos_token_id"].empty() ? json["eos_token_id"][0]
                                                                                    : json["eos_token_id"];
  if (!id.is_number_unsigned() || id.get<std::int64_t>() >= tokenizer.vocabulary()) return -1;
  return id.get<std::int32_t>();
}

PrepareAnswersReport prepare_answers(const PrepareAnswersOptions& options) {
  return AnswerPreparation(options).run();
}

}  // namespace bireme
