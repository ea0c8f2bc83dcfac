#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/data/manifest.h"

namespace bireme {

/// What stands behind the prompts of a dataset.
enum class AnswerKind : std::uint8_t {
  sft,       ///< one answer to imitate
  pairs,     ///< a chosen and a rejected answer
  feedback,  ///< one answer with a label, a score, or both
};
/// "sft", "pairs" or "feedback", as the manifest and `bireme prepare` have it.
const char* to_string(AnswerKind kind);

/// What gives way when a record has more than `max_length` tokens.
enum class Truncation : std::uint8_t {
  end,     ///< the answer's tail; its end token is gone then
  prompt,  ///< the oldest tokens of the prompt behind the begin token
  drop,    ///< the record
};
const char* to_string(Truncation truncation);

/// dataset.json of prompts with answers.
struct AnswerManifest : DatasetManifest {
  AnswerKind answer_kind = AnswerKind::pairs;
  std::int64_t tokens = 0;         ///< of all prompts and answers; a prompt is stored once
  std::int64_t answer_tokens = 0;  ///< of all answers
  std::int64_t vocabulary = 0;     ///< all ids are below it
  std::int32_t begin = -1;         ///< put before prompts; -1: none
  std::int32_t end = -1;           ///< closes answers; -1: none
  std::int64_t max_length = 0;     ///< of prompt and answer together
  Truncation truncation = Truncation::end;
  std::string chat_template;  ///< name or the first line of one; empty where no conversation was read
  std::string part;           ///< of the prompts: all, train, judge, judge-validation or evaluation
  std::string tokenizer_kind, tokenizer_fingerprint;
  /// What was met and left out or changed on the way: `identical`, `empty`, `bad`, `later_turns`, ….
  std::map<std::string, std::int64_t> counts;
  // Of the records that carry one.
  std::int64_t likes = 0, dislikes = 0, scores = 0;
  double score_mean = 0, score_deviation = 0;  ///< over all scores; population standard deviation

  int answers() const { return answer_kind == AnswerKind::pairs ? 2 : 1; }
};

std::string to_json(const AnswerManifest& manifest);
/// @throws Error (data) naming the file and the key that is missing or wrong
AnswerManifest parse_answer_manifest(std::string_view json, const std::string& where);

}  // namespace bireme
