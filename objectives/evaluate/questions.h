#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/data/answer_tokens.h"

namespace bireme {

/// A prompt that systems are to answer, with its number among the distinct ones of its file and part.
struct Question {
  std::int64_t number = 0;  ///< keys the random numbers of its answers
  AnswerText text;          ///< with the answers that the file gives it
  std::vector<std::int32_t> tokens;
};

struct QuestionOptions {
  std::filesystem::path file;  ///< .jsonl, plain or .gz
  PromptPart part = PromptPart::evaluation;
  std::int64_t limit = 0;       ///< prompts at most, from the beginning; 0: all
  AnswerTokensOptions tokens;   ///< how the answering model reads them
  std::int64_t context = 0;     ///< of that model; 0: any length
  std::int64_t max_tokens = 0;  ///< of an answer, which have to fit behind the prompt
  bool needs_chosen = false;    ///< the file's own answers will be compared with
};

struct Questions {
  std::vector<Question> list;
  std::int64_t other_parts = 0, repeated = 0, too_long = 0;  ///< left out
};

/// @throws Error (data) with the line, or when no prompt is left, with what to do
Questions read_questions(const QuestionOptions& options);

/// Lines of a file of pairs that belong to a part, but for those whose answers do not compare.
/// @throws Error (data) with the line
std::vector<AnswerText> read_pairs_of_part(const std::filesystem::path& file, PromptPart part);

/// The words of an answer, whatever its form.
std::string words_of(const Passage& answer);

}  // namespace bireme
