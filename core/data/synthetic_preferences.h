#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bireme {

/// Preferences whose rule is known exactly. A prompt asks for one of some things, and the better answer is
/// the one that names it and nothing else. What raters leave behind is less clear: some of them err, and
/// better answers tend to be longer, which has nothing to do with the rule but is easier to learn. So it can
/// be told whether a judge was misled or an answer is worse.
struct SyntheticPreferenceOptions {
  double noise = 0.1;        ///< share of pairs that raters got wrong
  double length_bias = 0.6;  ///< share of better answers that say more than the other
  std::uint64_t seed = 0;
  std::int64_t answers = 4;  ///< scored ones to a prompt
  double score_noise = 0.3;  ///< standard deviation of what raters add to a score

  /// @throws Error (usage)
  void validate() const;
};

struct SyntheticPreference {
  std::string prompt, chosen, rejected;
};
/// Pair `number` of the endless row that a seed stands for. The options must be valid.
SyntheticPreference make_preference(const SyntheticPreferenceOptions& options, std::int64_t number);

/// Single answers to the same kind of prompts, with scores:
///     score = (right by the gold rule) + generosity(how the prompt opens) + score_noise · N(0, 1).
/// Much of it lies in the prompt: raters give up to one half more where they were asked politely and as much
/// less where not, and some things are harder than others: an answer to a prompt that asks for thing i of N
/// is right with probability (i + 1/2)/N.
struct SyntheticFeedback {
  struct Scored {
    std::string completion;
    double score = 0;
  };
  std::string prompt;
  std::vector<Scored> answers;
};
/// Prompt `number`, with its answers.
SyntheticFeedback make_feedback(const SyntheticPreferenceOptions& options, std::int64_t number);

/// The gold rule: 1 for an answer that names the thing asked for and no other, 0 for any else; nothing where
/// the prompt is not of this kind.
std::optional<double> gold_score(std::string_view prompt, std::string_view answer);

/// Writes pairs as JSON lines with prompt, chosen and rejected, for `bireme prepare pairs` and judges.
/// @throws Error (usage) for options, (checkpoint) where the file cannot be written
void write_preferences(const SyntheticPreferenceOptions& options, std::int64_t pairs,
                       const std::filesystem::path& output);
/// Writes the answers to some prompts as JSON lines with prompt, completion and score, for
/// `bireme prepare feedback`. @throws as above
void write_feedback(const SyntheticPreferenceOptions& options, std::int64_t prompts,
                    const std::filesystem::path& output);

}  // namespace bireme
