#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/data/answer_dataset.h"
#include "core/data/answer_records.h"

namespace bireme {

/// How prompts and answers become tokens.
struct AnswerTokensOptions {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::int32_t end = -1;                           ///< put behind an answer that is a string; -1: nothing
  std::optional<ChatTemplate> chat_template = {};  ///< for conversations
  bool as_chat = false;                            ///< strings and transcripts become conversations first
  std::int64_t max_length = 1024;
  Truncation truncation = Truncation::end;
};

using Counts = std::map<std::string, std::int64_t>;

/// Turns a record into tokens. The prompt's are the longest that the prompt alone and prompt and answer
/// together begin with, in a pair the shorter of the two, so that all answers share them; where a tokenizer
/// merges letters across the border, the prompt's last token thus moves into the answer.
/// @param counts  what happened on the way: boundary_merged, no_prompt, cut_*, dropped_*
/// @return        nothing when the record is too long and is dropped
/// @throws Error (data) as ChatTemplate::encode, or for conversations without a template
std::optional<AnswerRecord> tokenize_answers(const AnswerText& text, const AnswerTokensOptions& options,
                                             Counts& counts);

/// The tokens of a prompt that is to be answered, begin token included. @throws Error (data) as above
std::vector<std::int32_t> tokenize_prompt(const AnswerText& text, const AnswerTokensOptions& options);

/// Cuts a record to max_length tokens, as the options say. Returns false when it is dropped.
bool truncate_answers(AnswerRecord& record, std::int32_t begin, std::int64_t max_length,
                      Truncation truncation, Counts& counts);

}  // namespace bireme
