#include "core/data/synthetic_preferences.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/expect_error.h"

namespace bireme {
namespace {

TEST(SyntheticPreferences, TheGoldRuleAsksForTheThingAndNoOther) {
  const std::string prompt = "Hello! Ada wants a lamp soon.\n";
  EXPECT_EQ(gold_score(prompt, "Here is a lamp."), 1);
  EXPECT_EQ(gold_score(prompt, "lamp"), 1);
  EXPECT_EQ(gold_score(prompt, "Here is a boat."), 0);
  EXPECT_EQ(gold_score(prompt, "Here is a lamp. Here is a boat."), 0) << "naming all does not help";
  EXPECT_EQ(gold_score(prompt, "Here are lamps."), 0);
  EXPECT_EQ(gold_score(prompt, ""), 0);
  EXPECT_FALSE(gold_score("What is a lamp?", "A lamp.").has_value());
}

TEST(SyntheticPreferences, AreAsNoisyAndAsBiasedAsAskedFor) {
  constexpr int count = 4000;
  int right = 0, longer = 0;
  std::set<std::string> prompts;
  for (int i = 0; i < count; ++i) {
    const SyntheticPreference pair = make_preference({.noise = 0.2, .length_bias = 0.7}, i);
    const double chosen = gold_score(pair.prompt, pair.chosen).value_or(-1),
                 rejected = gold_score(pair.prompt, pair.rejected).value_or(-1);
    ASSERT_EQ(chosen + rejected, 1) << pair.prompt << pair.chosen << pair.rejected;
    right += chosen == 1;
    const std::string &better = chosen == 1 ? pair.chosen : pair.rejected,
                      &worse = chosen == 1 ? pair.rejected : pair.chosen;
    longer += better.size() > worse.size() + 5;
    prompts.insert(pair.prompt);
  }
  EXPECT_NEAR(right / double{count}, 0.8, 0.02);
  // Those that say more, and of the others a quarter: one phrase against none.
  EXPECT_NEAR(longer / double{count}, 0.7 + 0.3 / 4, 0.03);
  EXPECT_GT(prompts.size(), 3000u) << "parts of the prompts need many of them";
}

TEST(SyntheticPreferences, DependOnSeedAndNumberAlone) {
  EXPECT_EQ(make_preference({.seed = 3}, 7).prompt, make_preference({.seed = 3}, 7).prompt);
  EXPECT_NE(make_preference({.seed = 3}, 7).prompt, make_preference({.seed = 4}, 7).prompt);
  const auto refused = [](SyntheticPreferenceOptions options) {
    return test::error_of(ErrorKind::usage, [&] { options.validate(); });
  };
  EXPECT_TRUE(test::mentions(refused({.noise = 0.7}), {"--noise", "0.5"}));
  EXPECT_TRUE(test::mentions(refused({.length_bias = -1}), {"--length-bias"}));
}

}  // namespace
}  // namespace bireme
