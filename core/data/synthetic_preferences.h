#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace bireme {

/// Preferences whose rule is known exactly. A prompt asks for one of some things, and the better answer is
/// the one that names it and nothing else. What raters leave behind is less clear: some of them err, and
/// better answers tend to be longer, which has nothing to do with the rule but is easier to learn. So it can
/// be told whether a judge was misled or an answer is worse.
struct SyntheticPreferenceOptions {
  double noise = 0.1;        ///< share of pairs that raters got wrong
  double length_bias = 0.6;  ///< share of pairs whose better answer says more than the other
  std::uint64_t seed = 0;

  /// @throws Error (usage)
  void validate() const;
};

struct SyntheticPreference {
  std::string prompt, chosen, rejected;
};
/// Pair `number` of the endless row that a seed stands for. The options must be valid.
SyntheticPreference make_preference(const SyntheticPreferenceOptions& options, std::int64_t number);

/// The gold rule: 1 for an answer that names the thing asked for and no other, 0 for any else; nothing where
/// the prompt is not of this kind.
std::optional<double> gold_score(std::string_view prompt, std::string_view answer);

/// Writes pairs as JSON lines with prompt, chosen and rejected, for `bireme prepare pairs` and judges.
/// @throws Error (usage) for options, (checkpoint) where the file cannot be written
void write_preferences(const SyntheticPreferenceOptions& options, std::int64_t pairs,
                       const std::filesystem::path& output);

}  // namespace bireme
