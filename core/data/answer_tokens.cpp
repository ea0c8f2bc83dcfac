#include "core/data/answer_tokens.h"

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "core/data/transcript.h"

namespace bireme {

namespace {

using Tokens = std::vector<std::int32_t>;

Passage as_chat(const Passage& passage, const std::string& role, bool is_transcript) {
  if (passage.is_chat) return passage;
  Passage chat{.text = {}, .turns = {}, .is_chat = true};
  if (is_transcript)
    chat.turns = turns_of_transcript(passage.text, role == "user" ? "system" : role);
  else
    chat.turns = {{role, passage.text}};
  return chat;
}

const ChatTemplate& require_template(const AnswerTokensOptions& options) {
  if (options.chat_template) return *options.chat_template;
  throw Error(ErrorKind::data, "the records are conversations, but the tokenizer has no chat template",
              "tokenizer", "name one with --chat-template chatml, llama2, llama3, zephyr or transcript");
}

/// The begin token where the tokenizer asks for one and it is not there yet.
void put_begin(Tokens& prompt, const Tokenizer& tokenizer) {
  const SpecialTokens& special = tokenizer.special();
  if (special.adds_begin && special.begin >= 0 && (prompt.empty() || prompt.front() != special.begin))
    prompt.insert(prompt.begin(), special.begin);
}

/// The prompt alone, and prompt and answer together.
struct EncodedTexts {
  Tokens alone;
  std::vector<Tokens> full;
};

EncodedTexts chat_sequences(const AnswerText& text, const AnswerTokensOptions& options) {
  const ChatTemplate& form = require_template(options);
  const Conversation prompt = as_chat(text.prompt, "user", text.is_transcript).turns;
  EncodedTexts sequences{.alone = form.encode(*options.tokenizer, options.end, prompt, true), .full = {}};
  for (const Passage& answer : text.answers) {
    Conversation all = prompt;
    const Conversation turns = as_chat(answer, "assistant", text.is_transcript).turns;
    all.insert(all.end(), turns.begin(), turns.end());
    sequences.full.push_back(form.encode(*options.tokenizer, options.end, all, false));
  }
  return sequences;
}

EncodedTexts string_sequences(const AnswerText& text, const AnswerTokensOptions& options) {
  EncodedTexts sequences{.alone = options.tokenizer->encode(text.prompt.text), .full = {}};
  for (const Passage& answer : text.answers) {
    Tokens full = options.tokenizer->encode(text.prompt.text + answer.text);
    if (options.end >= 0 && (full.empty() || full.back() != options.end)) full.push_back(options.end);
    sequences.full.push_back(std::move(full));
  }
  return sequences;
}

std::ptrdiff_t shared_length(const Tokens& a, const Tokens& b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

std::string counted(const std::string& what, std::size_t answer, std::size_t answers) {
  return answers == 1 ? what : what + (answer == 0 ? "_chosen" : "_rejected");
}

}  // namespace

std::optional<AnswerRecord> tokenize_answers(const AnswerText& text, const AnswerTokensOptions& options,
                                             Counts& counts) {
  const bool is_chat = text.prompt.is_chat || options.as_chat;
  EncodedTexts sequences = is_chat ? chat_sequences(text, options) : string_sequences(text, options);
  auto prompt = std::ssize(sequences.alone);
  for (const Tokens& full : sequences.full) prompt = std::min(prompt, shared_length(sequences.alone, full));
  if (prompt < std::ssize(sequences.alone)) ++counts["boundary_merged"];

  AnswerRecord record;
  record.prompt.assign(sequences.alone.begin(), sequences.alone.begin() + prompt);
  for (const Tokens& full : sequences.full) record.answers.emplace_back(full.begin() + prompt, full.end());
  put_begin(record.prompt, *options.tokenizer);
  record.preference = text.preference.value_or(1);
  for (const std::optional<double>& score : text.scores)
    record.scores.push_back(score.value_or(std::numeric_limits<double>::quiet_NaN()));
  record.label = text.label;
  record.prompt_key = prompt_key(text.prompt);
  // Without a prompt the first token of an answer is predicted by nothing; one more must be there.
  for (const Tokens& answer : record.answers)
    if (answer.empty() || (record.prompt.empty() && answer.size() < 2)) {
      ++counts["dropped_no_tokens"];
      return {};
    }
  if (record.prompt.empty()) ++counts["no_prompt"];
  if (!truncate_answers(record, options.tokenizer->special().begin, options.max_length, options.truncation,
                        counts))
    return {};
  return record;
}

std::vector<std::int32_t> tokenize_prompt(const AnswerText& text, const AnswerTokensOptions& options) {
  Tokens prompt =
      text.prompt.is_chat || options.as_chat
          ? require_template(options).encode(*options.tokenizer, options.end,
                                             as_chat(text.prompt, "user", text.is_transcript).turns, true)
          : options.tokenizer->encode(text.prompt.text);
  put_begin(prompt, *options.tokenizer);
  return prompt;
}

bool truncate_answers(AnswerRecord& record, std::int32_t begin, std::int64_t max_length,
                      Truncation truncation, Counts& counts) {
  const std::size_t answers = record.answers.size();
  record.is_cut.assign(answers, false);
  std::int64_t longest = 0;
  for (const Tokens& answer : record.answers) longest = std::max<std::int64_t>(longest, std::ssize(answer));
  if (std::ssize(record.prompt) + longest <= max_length) return true;

  const auto count_long = [&](const std::string& what, std::int64_t room) {
    for (std::size_t a = 0; a < answers; ++a)
      if (std::ssize(record.answers[a]) > room) ++counts[counted(what, a, answers)];
  };
  if (truncation == Truncation::prompt) {
    const bool has_begin = begin >= 0 && !record.prompt.empty() && record.prompt.front() == begin;
    // A token must be left that predicts the answer's first.
    const std::int64_t kept = max_length - longest;
    if (kept < 1) {
      count_long("dropped_long", max_length - 1);
      return false;
    }
    const std::ptrdiff_t excess = std::ssize(record.prompt) - kept, from = has_begin ? 1 : 0;
    record.prompt.erase(record.prompt.begin() + from, record.prompt.begin() + from + excess);
    record.is_prompt_cut = true;
    ++counts["cut_prompt"];
    return true;
  }
  const std::int64_t room = max_length - std::ssize(record.prompt);
  if (room < 1) {
    ++counts["dropped_long_prompt"];
    return false;
  }
  if (truncation == Truncation::drop) {
    count_long("dropped_long", room);
    return false;
  }
  count_long("cut", room);
  for (std::size_t a = 0; a < answers; ++a) {
    Tokens& answer = record.answers[a];
    record.is_cut[a] = std::ssize(answer) > room;
    if (record.is_cut[a]) answer.resize(static_cast<std::size_t>(room));
  }
  return true;
}

}  // namespace bireme
