#include "core/data/transcript.h"

#include <algorithm>

namespace bireme {

namespace {

constexpr std::string_view kHuman = "\n\nHuman:", kAssistant = "\n\nAssistant:";

bool has_turn(std::string_view text) {
  return text.find(kHuman) != std::string_view::npos || text.find(kAssistant) != std::string_view::npos;
}

std::string stripped(std::string_view text) {
  constexpr std::string_view space = " \t\n\r\f\v";
  const std::size_t first = text.find_first_not_of(space);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(space) + 1 - first));
}

}  // namespace

std::optional<SplitTranscripts> split_transcripts(std::string_view chosen, std::string_view rejected) {
  const auto parting = std::ranges::mismatch(chosen, rejected);
  const std::string_view shared = chosen.substr(0, static_cast<std::size_t>(parting.in1 - chosen.begin()));
  const std::size_t marker = shared.rfind(kAssistant);
  if (marker == std::string_view::npos) return {};
  const std::size_t end = marker + kAssistant.size();
  SplitTranscripts split{.prompt = std::string(chosen.substr(0, end)),
                         .chosen = std::string(chosen.substr(end)),
                         .rejected = std::string(rejected.substr(end))};
  split.has_later_turns = has_turn(split.chosen) || has_turn(split.rejected);
  return split;
}

Conversation turns_of_transcript(std::string_view text, const std::string& first_role) {
  Conversation turns;
  std::string role = first_role;
  for (;;) {
    const std::size_t human = text.find(kHuman), assistant = text.find(kAssistant),
                      next = std::min(human, assistant);
    const bool is_last = next == std::string_view::npos;
    const bool opens_transcript = turns.empty() && next == 0;
    std::string content = stripped(text.substr(0, next));
    if (!opens_transcript && !(is_last && content.empty() && !turns.empty()))
      turns.push_back({role, std::move(content)});
    if (is_last) return turns;
    role = next == human ? "user" : "assistant";
    text.remove_prefix(next + (next == human ? kHuman.size() : kAssistant.size()));
  }
}

}  // namespace bireme
