#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bireme {

/// Cuts text into the words that byte-pair encoding works on: the matches of a regular expression, and what
/// lies between them. Any number of threads may use one at once.
class SplitPattern {
 public:
  /// The expression of GPT-2 (Radford et al. 2019), which vocabularies of kind ByteLevel stand for:
  ///     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  static const char* const kGpt2;

  /// @param expression  as ICU reads it; the one of GPT-2 is run by a scanner of its own, ten times as fast
  /// @throws Error (data) naming the place in the expression that is wrong
  explicit SplitPattern(const std::string& expression, bool with_own_scanner = true);
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  ~SplitPattern();

  /// Appends where each word of `text`, which must be UTF-8, ends. They cover it.
  /// @throws Error (data) when the expression takes too long on it
  void split(std::string_view text, std::vector<std::size_t>& ends) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;  // null: the scanner's
};

}  // namespace bireme
