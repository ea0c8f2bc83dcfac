#pragma once

#include <span>

#include "core/data/answer_dataset.h"
#include "core/data/batch.h"

namespace bireme {

/// Which tokens a likelihood term imitates. Only answers of which something is imitated: those that are
/// chosen.
enum class Imitation {
  none,
  completion,  ///< the tokens of the chosen answer
  sequence     ///< and those of its prompt, from the second on
};

struct PackingOptions {
  /// Answers branch from one copy of their prompt, of which the last layer computes what they read alone;
  /// false makes a text of each with a prompt of its own, computed in full, for comparison.
  bool share_prompts = true;
  Imitation imitation = Imitation::none;
  bool chosen_only = false;  ///< leaves out all answers of a record but the first
};

/// Number of tokens that a likelihood term imitates in a record of these lengths.
std::int64_t count_imitated(const AnswerLengths& lengths, Imitation imitation);

/// Lays records out as rows of one pass, in their order. Answers get positions 0, 1, …; reference, reward and
/// label are left to the caller.
/// @param memory  of the host
/// @throws Error (data) for an answer of which no token can be scored
AnswerRows pack_answers(std::span<const AnswerRecord> records, const PackingOptions& options, Memory& memory);

}  // namespace bireme
