#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"

namespace bireme {

/// One turn of a conversation.
struct Turn {
  std::string role;  ///< system, user, assistant
  std::string content;
  bool operator==(const Turn&) const = default;
};
using Conversation = std::vector<Turn>;

/// How a conversation is written down for a model. Tokenizers carry such rules as programs in Jinja, for
/// which there is no C++ library that is kept and packaged; the forms in use are few, and here they are by
/// name:
///   - chatml:     <|im_start|>ROLE⏎CONTENT<|im_end|>⏎
///   - llama2:     BEGIN [INST] <<SYS>>⏎SYSTEM⏎<</SYS>>⏎⏎USER [/INST] ASSISTANT END
///   - llama3:     BEGIN <|start_header_id|>ROLE<|end_header_id|>⏎⏎CONTENT<|eot_id|>
///   - zephyr:     <|ROLE|>⏎CONTENT END⏎
///   - transcript: ⏎⏎Human: CONTENT, ⏎⏎Assistant: CONTENT, and END behind the last answer
/// BEGIN and END are the tokenizer's own tokens, not text.
class ChatTemplate {
 public:
  static const std::vector<std::string>& names();
  /// @throws Error (usage) with the nearest name
  explicit ChatTemplate(const std::string& name);
  /// The name of the form that a Jinja template writes; empty when it is none of these, or adds words of its
  /// own such as a system prompt.
  static std::string recognize(std::string_view jinja);
  /// The Jinja template in the tokenizer's configuration; empty when it has none.
  static std::string jinja_of(const Tokenizer& tokenizer);

  const std::string& name() const { return name_; }
  /// The tokens of a conversation.
  /// @param end             the end token of answers; -1: none, and END writes nothing
  /// @param opens_answer    goes on to where the assistant's next turn begins (the generation prompt)
  /// @throws Error (data)   for a role that the form does not know, or turns in an order that it cannot write
  std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::int32_t end, const Conversation& turns,
                                   bool opens_answer) const;

 private:
  std::string name_;
};

}  // namespace bireme
