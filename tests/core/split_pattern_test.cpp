#include "core/text/split_pattern.h"

#include <gtest/gtest.h>

#include <random>

#include "core/text/utf8.h"
#include "tests/support/expect_error.h"

namespace bireme {
namespace {

using Words = std::vector<std::string>;

Words words_of(const SplitPattern& pattern, const std::string& text) {
  std::vector<std::size_t> ends;
  pattern.split(text, ends);
  Words words;
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  EXPECT_EQ(begin, text.size());
  return words;
}

TEST(SplitPattern, CutsAsTheExpressionOfGpt2Says) {
  const SplitPattern pattern(SplitPattern::kGpt2);
  EXPECT_EQ(words_of(pattern, "I'm  don't 3rd!?\n\n x"),
            (Words{"I", "'m", " ", " don", "'t", " 3", "rd", "!?", "\n\n", " x"}));
  EXPECT_EQ(words_of(pattern, "a\n  b \n"), (Words{"a", "\n ", " b", " \n"}));
  EXPECT_EQ(words_of(pattern, "''s'D'll"), (Words{"''", "s", "'", "D", "'ll"}));
  EXPECT_TRUE(words_of(pattern, "").empty());
}

// The scanner replaces a general engine, so the two are compared where they could differ: every kind of
// character beside every other.
TEST(SplitPattern, TheScannerAgreesWithTheEngine) {
  const SplitPattern scanner(SplitPattern::kGpt2), engine(SplitPattern::kGpt2, false);
  const std::vector<std::string> parts{
      " ",       " ",      "  ",   "\n",         "\t",     "\r",     "a",      "B",      "\u00e9",
      "e\u0301", "\u65e5", "1",    "\u0663",     "\u00bd", "\u2167", "!",      "'",      "'s",
      "'ll",     "'re",    "'RE",  "-",          "\u00a0", "\u3000", "\u200b", "\u0085", "\u180e",
      "\u001c",  "\u2028", "\x0b", "\U0001F600", "\u02b0", "\u0301", "_",      "\u05d0", "\U00020000"};
  std::mt19937 random(7);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int n = static_cast<int>(random() % 12); n >= 0; --n) text += parts[random() % parts.size()];
    ASSERT_EQ(words_of(scanner, text), words_of(engine, text)) << testing::PrintToString(text);
  }
  for (std::uint32_t c = 1; c < 0x3100; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text = "a";
    append_utf8(text, c);
    text += "1 ";
    append_utf8(text, c);
    ASSERT_EQ(words_of(scanner, text), words_of(engine, text)) << "U+" << std::hex << c;
  }
}

TEST(SplitPattern, KeepsWhatNoMatchCovers) {
  const SplitPattern pattern("[0-9]+");
  EXPECT_EQ(words_of(pattern, "ab12cd3"), (Words{"ab", "12", "cd", "3"}));
  EXPECT_EQ(words_of(SplitPattern("x*"), "axxb"), (Words{"a", "xx", "b"})) << "empty matches cut nothing off";
}

TEST(SplitPattern, StopsAnExpressionThatTakesTooLong) {
  const SplitPattern pattern("(a+)+$");
  std::vector<std::size_t> ends;
  EXPECT_TRUE(test::mentions(
      test::error_of(ErrorKind::data, [&] { pattern.split(std::string(64, 'a') + "b", ends); }),
      {"cannot be matched"}));
}

}  // namespace
}  // namespace bireme
