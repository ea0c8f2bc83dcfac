#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/data/answer_lines.h"
#include "core/data/answer_tokens.h"

namespace bireme {

struct PrepareAnswersOptions {
  AnswerKind kind = AnswerKind::pairs;  ///< of the dataset
  AnswerLines::Options lines;           ///< its kind: of the lines, from which the dataset's is made
  AnswerTokensOptions tokens;
  std::filesystem::path output;
  std::string split = "train";
  PromptPart part = PromptPart::all;
  bool keep_identical = false;  ///< keep pairs of equal answers
  bool drop_ties = false;       ///< leave out pairs whose raters were divided
  double min_margin = 0;        ///< pairs from feedback: scores closer than this make no pair
  std::int64_t shard_size = 1 << 14;
  bool replace = false;
  std::function<void(std::int64_t done, std::int64_t total, std::int64_t records)> progress = {};
};

struct PrepareAnswersReport {
  AnswerManifest manifest;
  std::vector<std::string> first_bad_lines;  ///< at most ten, each with place and reason
};

/// Turns JSON lines into a dataset of prompts with answers. Lines of another kind than the dataset are
/// converted: a pair becomes two singles side by side, or its chosen answer an instruction; singles with
/// equal prompts, sorted by score, become pairs of rank i with rank i + ⌈k/2⌉. The result does not depend on
/// the number of threads. What is left out is counted in the manifest.
/// @throws Error (data) with file and line, or when nothing is left; (usage) for an output in use
PrepareAnswersReport prepare_answers(const PrepareAnswersOptions& options);

/// The two singles of a pair: liked and disliked, with their scores or 1 and 0.
std::vector<AnswerText> singles_of(const AnswerText& pair);
/// The pairs of singles; each needs a score or a label (1 or 0). Groups come in the order of their first
/// record, equal scores in that of their records. Pairs closer than the margin, or equal, are counted
/// instead.
std::vector<AnswerText> pairs_of(const std::vector<AnswerText>& singles, double min_margin, Counts& counts);

/// The end token of answers when none is named: what the tokenizer says, or `eos_token_id` of a config.json
/// beside it; -1 when neither does. @param path  of the tokenizer
std::int32_t find_end_token(const Tokenizer& tokenizer, const std::filesystem::path& path);

}  // namespace bireme
