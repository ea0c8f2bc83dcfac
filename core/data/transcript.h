#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/text/chat_template.h"

namespace bireme {

/// Two transcripts with a shared beginning, such as HH-RLHF has.
struct SplitTranscripts {
  std::string prompt, chosen, rejected;
  bool has_later_turns = false;  ///< the texts part before their last turn, so that an answer holds others
};

/// Splits `⏎⏎Human: …⏎⏎Assistant: …` behind the last `⏎⏎Assistant:` that both texts share; each answer keeps
/// its leading space. Nothing when they share none. To cut each text at its own last marker instead would
/// slice one at a foreign place where they part early; to cut where the characters first differ would move
/// words with which both answers begin into the prompt.
std::optional<SplitTranscripts> split_transcripts(std::string_view chosen, std::string_view rejected);

/// The turns of a transcript, Human as user and Assistant as assistant, contents stripped. Text before the
/// first marker belongs to a turn of `first_role`; an open `⏎⏎Assistant:` at the end is left out.
Conversation turns_of_transcript(std::string_view text, const std::string& first_role);

}  // namespace bireme
