#include "core/data/answer_records.h"

#include <spdlog/fmt/fmt.h>
#include <unicode/uchar.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/checksum.h"
#include "core/base/error.h"
#include "core/base/json.h"
#include "core/data/transcript.h"
#include "core/text/utf8.h"

namespace bireme {

namespace {

using Json = nlohmann::json;

bool is_blank(std::string_view text) {
  for (std::size_t i = 0; i < text.size();)
    if (!u_isUWhiteSpace(static_cast<UChar32>(next_code_point(text, i)))) return false;
  return true;
}

bool is_blank(const Passage& answer) {
  return answer.is_chat ? std::ranges::all_of(answer.turns, [](const Turn& t) { return is_blank(t.content); })
                        : is_blank(answer.text);
}

/// The field, or null where it is missing or is null.
const Json* find(const Json& record, const char* name) {
  const auto found = record.find(name);
  return found == record.end() || found->is_null() ? nullptr : &*found;
}

/// The prompt goes by three names. Returns the one in use, for messages.
const char* prompt_name(const Json& record) {
  for (const char* name : {"prompt", "instruction", "question"})
    if (find(record, name)) return name;
  return nullptr;
}

const Json& require(const Json& record, const char* name) {
  if (const Json* found = find(record, name)) return *found;
  throw RecordProblem(fmt::format("has no \"{}\"", name));
}

Conversation conversation(const Json& list, const char* name) {
  if (list.empty()) throw RecordProblem(fmt::format("its \"{}\" is an empty conversation", name));
  Conversation turns;
  for (const Json& turn : list) {
    if (!turn.is_object() || !turn.contains("role") || !turn["role"].is_string() ||
        !turn.contains("content") || !turn["content"].is_string())
      throw RecordProblem(
          fmt::format("turn {} of its \"{}\" is not an object with strings \"role\" and \"content\"",
                      turns.size(), name));
    turns.push_back({turn["role"].get<std::string>(), turn["content"].get<std::string>()});
  }
  return turns;
}

Passage passage(const Json& value, const char* name) {
  if (value.is_string()) return {.text = value.get<std::string>(), .turns = {}, .is_chat = false};
  if (value.is_array()) return {.text = {}, .turns = conversation(value, name), .is_chat = true};
  throw RecordProblem(fmt::format("its \"{}\" is neither a string nor a list of turns", name));
}

std::optional<double> number(const Json& record, const char* name) {
  const Json* value = find(record, name);
  if (!value) return {};
  if (!value->is_number() || !std::isfinite(value->get<double>()))
    throw RecordProblem(
        fmt::format("its \"{}\" is {}, not a finite number", name, json_beginning(*value, 40)));
  return value->get<double>();
}

void require_assistant(const Passage& answer, const char* name) {
  if (answer.is_chat && answer.turns.front().role != "assistant")
    throw RecordProblem(
        fmt::format("the answer in its \"{}\" begins with a turn of role `{}`, not `assistant`", name,
                    answer.turns.front().role));
}

/// The first turns that both conversations have; each keeps at least one of its own.
void split_conversations(AnswerText& record) {
  Conversation &chosen = record.answers[0].turns, &rejected = record.answers[1].turns;
  const std::size_t most = std::min(chosen.size(), rejected.size()) - 1;
  std::size_t shared = 0;
  while (shared < most && chosen[shared] == rejected[shared]) ++shared;
  if (shared == 0)
    throw RecordProblem(
        "has no \"prompt\", and its \"chosen\" and \"rejected\" share no turn that could be one");
  const auto count = static_cast<std::ptrdiff_t>(shared);
  record.prompt = {.text = {}, .turns = {chosen.begin(), chosen.begin() + count}, .is_chat = true};
  chosen.erase(chosen.begin(), chosen.begin() + count);
  rejected.erase(rejected.begin(), rejected.begin() + count);
}

void split_strings(AnswerText& record) {
  const auto split = split_transcripts(record.answers[0].text, record.answers[1].text);
  if (!split)
    throw RecordProblem(
        "has no \"prompt\", and its \"chosen\" and \"rejected\" share no turn marker `\\n\\nAssistant:` "
        "behind "
        "which it could be cut");
  record.prompt.text = split->prompt;
  record.answers[0].text = split->chosen;
  record.answers[1].text = split->rejected;
  record.is_transcript = true;
  record.has_later_turns = split->has_later_turns;
}

AnswerText pair_of(const Json& json) {
  AnswerText record;
  const char* prompt = prompt_name(json);
  if (prompt) record.prompt = passage(json[prompt], prompt);
  for (const char* name : {"chosen", "rejected"})
    record.answers.push_back(passage(require(json, name), name));
  const bool is_chat = record.answers[0].is_chat;
  if (is_chat != record.answers[1].is_chat)
    throw RecordProblem("one of \"chosen\" and \"rejected\" is a string, the other a conversation");
  if (prompt && record.prompt.is_chat && !is_chat)
    throw RecordProblem(fmt::format("its \"{}\" is a conversation, its answers are strings", prompt));
  if (is_chat && !record.prompt.is_chat)
    split_conversations(record);  // a prompt in a string beside it says the same once more
  else if (!prompt)
    split_strings(record);
  require_assistant(record.answers[0], "chosen");
  require_assistant(record.answers[1], "rejected");
  record.preference = number(json, "preference");
  if (record.preference && !(*record.preference >= 0 && *record.preference <= 1))
    throw RecordProblem(fmt::format("its \"preference\" is {}, not a share from 0 to 1", *record.preference));
  record.scores = {number(json, "score_chosen"), number(json, "score_rejected")};
  if (record.answers[0] == record.answers[1]) record.state = AnswerText::State::identical;
  return record;
}

std::optional<bool> label_of(const Json& json) {
  const Json* value = find(json, "label");
  if (!value) return {};
  if (value->is_boolean()) return value->get<bool>();
  if (value->is_number() && value->get<double>() == 1) return true;
  if (value->is_number() && (value->get<double>() == 0 || value->get<double>() == -1)) return false;
  throw RecordProblem(
      fmt::format("its \"label\" is {}, not true or false, 1 or 0, 1 or -1", json_beginning(*value, 40)));
}

AnswerText single_of(const Json& json, bool is_judged) {
  AnswerText record;
  if (const Json* messages = find(json, "messages")) {
    if (!messages->is_array()) throw RecordProblem("its \"messages\" is not a list of turns");
    Conversation turns = conversation(*messages, "messages");
    if (turns.back().role != "assistant")
      throw RecordProblem(fmt::format("the last turn of its \"messages\" is of role `{}`, not `assistant`",
                                      turns.back().role));
    if (turns.size() < 2) throw RecordProblem("its \"messages\" has an answer, but no prompt before it");
    record.answers.push_back({.text = {}, .turns = {turns.back()}, .is_chat = true});
    turns.pop_back();
    record.prompt = {.text = {}, .turns = std::move(turns), .is_chat = true};
  } else {
    const char* prompt = prompt_name(json);
    if (!prompt) throw RecordProblem("has no \"prompt\"");
    record.prompt = passage(json[prompt], prompt);
    if (!find(json, "completion") && find(json, "chosen"))
      throw RecordProblem("has no \"completion\" but a \"chosen\" answer: --from-pairs reads such records");
    record.answers.push_back(passage(require(json, "completion"), "completion"));
    if (record.prompt.is_chat != record.answers[0].is_chat)
      throw RecordProblem(
          fmt::format("one of \"{}\" and \"completion\" is a string, the other a conversation", prompt));
    require_assistant(record.answers[0], "completion");
  }
  if (!is_judged) {
    record.scores = {std::nullopt};
    return record;
  }
  record.label = label_of(json);
  record.scores = {number(json, "score")};
  if (!record.label && !record.scores[0]) throw RecordProblem("has neither \"label\" nor \"score\"");
  return record;
}

}  // namespace

namespace {

Json parse_line(std::string_view line) {
  if (const std::size_t valid = valid_utf8(line); valid < line.size())
    throw RecordProblem(fmt::format("byte {} of the line (0x{:02x}) is not UTF-8", valid + 1,
                                    static_cast<unsigned char>(line[valid])));
  try {
    Json json = parse_json(line);
    if (!json.is_object()) throw RecordProblem("is not a JSON object");
    return json;
  } catch (const Json::parse_error& error) {
    throw RecordProblem(fmt::format("is not JSON from character {} on", error.byte));
  } catch (const Json::out_of_range&) {
    throw RecordProblem("holds a number that is not finite");
  }
}

AnswerText with_state(AnswerText record) {
  if (record.state == AnswerText::State::ok &&
      std::ranges::any_of(record.answers, [](const Passage& answer) { return is_blank(answer); }))
    record.state = AnswerText::State::empty;
  return record;
}

}  // namespace

AnswerText parse_answer_record(AnswerKind kind, std::string_view line) {
  const Json json = parse_line(line);
  return with_state(kind == AnswerKind::pairs ? pair_of(json)
                                              : single_of(json, kind == AnswerKind::feedback));
}

AnswerText parse_prompt_record(std::string_view line) {
  const Json json = parse_line(line);
  if (find(json, "chosen") && find(json, "rejected")) return with_state(pair_of(json));
  AnswerText record;
  if (find(json, "messages")) {
    record = single_of(json, false);
    record.answers.clear();
  } else if (const char* name = prompt_name(json)) {
    record.prompt = passage(json[name], name);
  } else {
    throw RecordProblem("has no \"prompt\"");
  }
  return record;
}

std::uint64_t prompt_key(const Passage& prompt) {
  std::string text = prompt.text;
  // A single question is the same whether it comes as a string or as a turn.
  if (prompt.is_chat && prompt.turns.size() == 1) text = prompt.turns.front().content;
  if (prompt.is_chat && prompt.turns.size() > 1)
    for (const Turn& turn : prompt.turns) text += turn.role + '\0' + turn.content + '\0';
  return std::stoull(checksum_bytes(text).substr(0, 16), nullptr, 16);
}

PromptPart part_of(std::uint64_t prompt_key) {
  const double place = static_cast<double>(prompt_key >> 11) * 0x1p-53;
  return place < 0.60   ? PromptPart::train
         : place < 0.85 ? PromptPart::judge
         : place < 0.90 ? PromptPart::judge_validation
                        : PromptPart::evaluation;
}

namespace {

constexpr PromptPart kParts[] = {PromptPart::all, PromptPart::train, PromptPart::judge,
                                 PromptPart::judge_validation, PromptPart::evaluation};

}  // namespace

const char* to_string(PromptPart part) {
  switch (part) {
    case PromptPart::all: return "all";
    case PromptPart::train: return "train";
    case PromptPart::judge: return "judge";
    case PromptPart::judge_validation: return "judge-validation";
    case PromptPart::evaluation: break;
  }
  return "evaluation";
}

PromptPart parse_part(const std::string& name) {
  for (const PromptPart part : kParts)
    if (name == to_string(part)) return part;
  throw Error(ErrorKind::usage, fmt::format("there is no part `{}`", name), "--part",
              "choose all, train, judge, judge-validation or evaluation");
}

}  // namespace bireme
