#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/data/answer_manifest.h"
#include "core/text/chat_template.h"

namespace bireme {

/// A prompt or an answer: a string, or turns of a conversation.
struct Passage {
  std::string text = {};
  Conversation turns = {};
  bool is_chat = false;
  bool operator==(const Passage&) const = default;
};

/// One line of a file of pairs, feedback or instructions, as it is read.
struct AnswerText {
  enum class State : std::uint8_t {
    ok,
    identical,  ///< the chosen answer is the rejected one, byte for byte
    empty,      ///< an answer is white space only
  };
  State state = State::ok;
  Passage prompt;
  std::vector<Passage> answers;               ///< pairs: chosen, rejected
  std::optional<double> preference;           ///< pairs: share of raters for the chosen answer
  std::vector<std::optional<double>> scores;  ///< one per answer
  std::optional<bool> label;                  ///< feedback
  bool is_transcript = false;                 ///< prompt and answers were split from transcripts
  bool has_later_turns = false;
};

/// A line that cannot be read; what() says why, without its place.
class RecordProblem : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Reads one line of JSON. Unknown fields are ignored; `prompt`, `instruction` and `question` are the same.
///   pairs:    prompt, chosen, rejected: strings or conversations; without prompt the shared turns, or the
///             shared part of two transcripts, are the prompt
///   feedback: prompt, completion and label or score; or messages, whose last turn is the completion
///   sft:      the same without label and score
/// @throws RecordProblem
AnswerText parse_answer_record(AnswerKind kind, std::string_view line);

/// Reads the prompt of a line of any kind; its answers too when it is a pair. @throws RecordProblem
AnswerText parse_prompt_record(std::string_view line);

/// Equal for equal prompts, however they are tokenized later.
std::uint64_t prompt_key(const Passage& prompt);

/// Which part of the data a prompt belongs to, by its key alone: 60 % train the policy, 25 % a judge, 5 %
/// validate the judge, 10 % are for evaluation.
enum class PromptPart : std::uint8_t { all, train, judge, judge_validation, evaluation };
PromptPart part_of(std::uint64_t prompt_key);
/// all, train, judge, judge-validation, evaluation.
const char* to_string(PromptPart part);
/// @throws Error (usage)
PromptPart parse_part(const std::string& name);

}  // namespace bireme
