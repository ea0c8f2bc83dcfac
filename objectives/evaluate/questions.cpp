#include "objectives/evaluate/questions.h"

#include <spdlog/fmt/fmt.h>

#include <set>

#include "core/base/error.h"
#include "core/data/answer_lines.h"

namespace bireme {

namespace {

/// Calls `take` with each line that belongs to a part; returns how many do not.
template <class Take>
std::int64_t for_each_of_part(const std::filesystem::path& file, PromptPart part, bool prompts_only,
                              const Take& take) {
  AnswerLines lines({.inputs = {file}, .kind = AnswerKind::pairs, .prompts_only = prompts_only});
  std::int64_t others = 0;
  while (std::optional<AnswerText> text = lines.next()) {
    if (part != PromptPart::all && part_of(prompt_key(text->prompt)) != part)
      ++others;
    else
      take(std::move(*text));
  }
  return others;
}

}  // namespace

Questions read_questions(const QuestionOptions& options) {
  Questions questions;
  std::set<std::uint64_t> seen;
  std::int64_t number = 0;
  questions.other_parts = for_each_of_part(options.file, options.part, true, [&](AnswerText text) {
    if (options.limit > 0 && std::ssize(questions.list) == options.limit) return;
    if (!seen.insert(prompt_key(text.prompt)).second) {
      ++questions.repeated;
      return;
    }
    if (options.needs_chosen && (text.answers.empty() || text.state != AnswerText::State::ok))
      throw Error(ErrorKind::data, "a record has no chosen answer to compare with", options.file.string(),
                  "give pairs, or a model to compare with");
    Question question{.number = number++, .text = std::move(text), .tokens = {}};
    question.tokens = tokenize_prompt(question.text, options.tokens);
    const bool is_too_long =
        options.context > 0 && std::ssize(question.tokens) + options.max_tokens > options.context;
    if (question.tokens.empty() || is_too_long)
      ++questions.too_long;
    else
      questions.list.push_back(std::move(question));
  });
  if (questions.list.empty())
    throw Error(ErrorKind::data,
                fmt::format("no prompt is left: {} of other parts than `{}`, {} too long for the model",
                            questions.other_parts, to_string(options.part), questions.too_long),
                options.file.string(), "give more prompts, the part all, or a lower limit of tokens");
  return questions;
}

std::vector<AnswerText> read_pairs_of_part(const std::filesystem::path& file, PromptPart part) {
  std::vector<AnswerText> pairs;
  for_each_of_part(file, part, false, [&](AnswerText text) {
    if (text.state == AnswerText::State::ok) pairs.push_back(std::move(text));
  });
  return pairs;
}

std::string words_of(const Passage& answer) {
  std::string text = answer.text;
  for (const Turn& turn : answer.turns) text += turn.content;
  return text;
}

}  // namespace bireme
