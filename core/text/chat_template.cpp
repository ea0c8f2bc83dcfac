#include "core/text/chat_template.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/text/tokenizer_files.h"

namespace bireme {

namespace {

std::string stripped(const std::string& text) {
  constexpr const char* space = " \t\n\r\f\v";
  const std::size_t first = text.find_first_not_of(space);
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(space) + 1 - first);
}

/// Text as it grows, with tokens in between; stretches of text are encoded each on their own, as tokenizers
/// do between special tokens.
class Script {
 public:
  Script(const Tokenizer& tokenizer, std::int32_t end) : tokenizer_(tokenizer), end_(end) {}
  void text(const std::string& more) { text_ += more; }
  void begin() { token(tokenizer_.special().begin); }
  void end() { token(end_); }
  std::vector<std::int32_t> finish() {
    flush();
    return std::move(ids_);
  }

 private:
  void token(std::int32_t id) {
    if (id < 0) return;
    flush();
    ids_.push_back(id);
  }
  void flush() {
    const std::vector<std::int32_t> more = tokenizer_.encode(text_);
    ids_.insert(ids_.end(), more.begin(), more.end());
    text_.clear();
  }

  const Tokenizer& tokenizer_;
  std::int32_t end_;
  std::string text_;
  std::vector<std::int32_t> ids_;
};

[[noreturn]] void refuse(const std::string& what, const std::string& name) {
  throw Error(ErrorKind::data, what, fmt::format("chat template {}", name),
              "mend the conversation, or choose another form with --chat-template");
}

void require_roles(const Conversation& turns, const std::string& name) {
  for (const Turn& turn : turns)
    if (turn.role != "system" && turn.role != "user" && turn.role != "assistant")
      refuse(fmt::format("a turn has the role `{}`, not system, user or assistant", turn.role), name);
}

void write_chatml(Script& script, const Conversation& turns, bool opens_answer) {
  for (const Turn& turn : turns)
    script.text(fmt::format("<|im_start|>{}\n{}<|im_end|>\n", turn.role, turn.content));
  if (opens_answer) script.text("<|im_start|>assistant\n");
}

void write_llama2(Script& script, const Conversation& turns) {
  std::string system;
  bool wants_user = true;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const Turn& turn = turns[i];
    if (turn.role == "system") {
      if (i > 0) refuse("a system turn is not the first", "llama2");
      system = fmt::format("<<SYS>>\n{}\n<</SYS>>\n\n", turn.content);
      continue;
    }
    if ((turn.role == "user") != wants_user) refuse("turns of user and assistant do not alternate", "llama2");
    wants_user = !wants_user;
    if (turn.role == "user") {
      script.begin();
      script.text(fmt::format("[INST] {} [/INST]", stripped(system + turn.content)));
      system.clear();
    } else {
      script.text(fmt::format(" {} ", stripped(turn.content)));
      script.end();
    }
  }
}

void write_llama3(Script& script, const Conversation& turns, bool opens_answer) {
  script.begin();
  for (const Turn& turn : turns)
    script.text(fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>", turn.role,
                            stripped(turn.content)));
  if (opens_answer) script.text("<|start_header_id|>assistant<|end_header_id|>\n\n");
}

void write_zephyr(Script& script, const Conversation& turns, bool opens_answer) {
  for (const Turn& turn : turns) {
    script.text(fmt::format("<|{}|>\n{}", turn.role, turn.content));
    script.end();
    script.text("\n");
  }
  if (opens_answer) script.text("<|assistant|>\n");
}

void write_transcript(Script& script, const Conversation& turns, bool opens_answer) {
  for (const Turn& turn : turns)
    script.text(fmt::format("\n\n{}: {}",
                            turn.role == "user"        ? "Human"
                            : turn.role == "assistant" ? "Assistant"
                                                       : "System",
                            turn.content));
  if (opens_answer)
    script.text("\n\nAssistant:");
  else
    script.end();
}

}  // namespace

const std::vector<std::string>& ChatTemplate::names() {
  static const std::vector<std::string> names{"chatml", "llama2", "llama3", "zephyr", "transcript"};
  return names;
}

ChatTemplate::ChatTemplate(const std::string& name) : name_(name) {
  if (std::ranges::find(names(), name) != names().end()) return;
  const std::string nearest = nearest_name(name, names());
  throw Error(ErrorKind::usage,
              fmt::format("there is no chat template `{}`{}", name,
                          nearest.empty() ? "" : fmt::format(", did you mean `{}`", nearest)),
              "--chat-template", fmt::format("choose one of {}", fmt::join(names(), ", ")));
}

std::string ChatTemplate::recognize(std::string_view jinja) {
  const auto has = [&](std::string_view words) { return jinja.find(words) != std::string_view::npos; };
  // Words that the template itself puts in, and tools, are beyond the plain forms.
  if (has("You are") || has("Cutting Knowledge") || has("tool")) return {};
  if (has("<|im_start|>")) return "chatml";
  if (has("<|start_header_id|>")) return "llama3";
  if (has("[INST]") && has("<<SYS>>")) return "llama2";
  if (has("<|user|>") && has("eos_token")) return "zephyr";
  if (has("Human:") && has("Assistant:")) return "transcript";
  return {};
}

std::string ChatTemplate::jinja_of(const Tokenizer& tokenizer) {
  using Json = nlohmann::json;
  for (const TokenizerFile& file : tokenizer.files()) {
    if (file.name != tokenizer_names::config) continue;
    const Json json = try_parse_json(file.bytes);
    if (!json.is_object() || !json.contains("chat_template")) return {};
    const Json& found = json["chat_template"];
    if (found.is_string()) return found.get<std::string>();
    if (!found.is_array()) return {};
    for (const Json& one : found)  // several by name
      if (one.is_object() && one.value("name", "") == "default" && one.contains("template") &&
          one["template"].is_string())
        return one["template"].get<std::string>();
  }
  return {};
}

std::vector<std::int32_t> ChatTemplate::encode(const Tokenizer& tokenizer, std::int32_t end,
                                               const Conversation& turns, bool opens_answer) const {
  require_roles(turns, name_);
  Script script(tokenizer, end);
  if (name_ == "chatml") write_chatml(script, turns, opens_answer);
  if (name_ == "llama2") write_llama2(script, turns);
  if (name_ == "llama3") write_llama3(script, turns, opens_answer);
  if (name_ == "zephyr") write_zephyr(script, turns, opens_answer);
  if (name_ == "transcript") write_transcript(script, turns, opens_answer);
  return script.finish();
}

}  // namespace bireme
