#include "core/data/synthetic_preferences.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
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

TEST(SyntheticFeedback, ScoresARightAnswerAndThePrompt) {
  constexpr int count = 6000;
  std::map<std::string, double> generosity;  // by the prompt's first words
  int apples = 0, right_apples = 0, knives = 0, right_knives = 0, right = 0, longer = 0;
  for (int i = 0; i < count; ++i) {
    const SyntheticFeedback feedback = make_feedback({.length_bias = 0.5, .answers = 3, .score_noise = 0}, i);
    ASSERT_EQ(feedback.answers.size(), 3U);
    const std::string opening = feedback.prompt.substr(0, feedback.prompt.find('!'));
    for (const auto& [completion, score] : feedback.answers) {
      const double gold = gold_score(feedback.prompt, completion).value_or(-1);
      ASSERT_TRUE(gold == 0 || gold == 1) << feedback.prompt;
      const auto [known, is_new] = generosity.try_emplace(opening, score - gold);
      EXPECT_NEAR(score - gold, known->second, 1e-12) << "without noise: the same for each such prompt";
      right += gold == 1;
      longer += gold == 1 && completion.size() > 40;  // two phrases or more
      const bool apple = feedback.prompt.find("apple") != std::string::npos,
                 knife = feedback.prompt.find("knife") != std::string::npos;
      apples += apple;
      right_apples += apple && gold == 1;
      knives += knife;
      right_knives += knife && gold == 1;
    }
  }
  ASSERT_EQ(generosity.size(), 6U);
  EXPECT_NEAR(generosity["Please help"], 0.5, 1e-12);
  EXPECT_NEAR(generosity["Listen"], -0.5, 1e-12);
  EXPECT_NEAR(right / (3.0 * count), 0.5, 0.02);
  EXPECT_NEAR(longer / double(right), 0.5, 0.03);
  EXPECT_NEAR(right_apples / double(apples), 1 / 64.0, 0.02) << "the hardest thing";
  EXPECT_NEAR(right_knives / double(knives), 63 / 64.0, 0.02) << "the easiest";
}

TEST(SyntheticFeedback, IsAsNoisyAsAskedFor) {
  double squares = 0;
  constexpr int count = 2000;
  for (int i = 0; i < count; ++i) {
    const SyntheticFeedback clean = make_feedback({.answers = 1, .score_noise = 0}, i),
                            noisy = make_feedback({.answers = 1, .score_noise = 0.7}, i);
    ASSERT_EQ(clean.answers[0].completion, noisy.answers[0].completion);
    const double noise = noisy.answers[0].score - clean.answers[0].score;
    squares += noise * noise / count;
  }
  EXPECT_NEAR(std::sqrt(squares), 0.7, 0.04);  // three times 0.7 / sqrt(2 · 2000)
}

TEST(SyntheticPreferences, DependOnSeedAndNumberAlone) {
  EXPECT_EQ(make_preference({.seed = 3}, 7).prompt, make_preference({.seed = 3}, 7).prompt);
  EXPECT_NE(make_preference({.seed = 3}, 7).prompt, make_preference({.seed = 4}, 7).prompt);
  const auto refused = [](SyntheticPreferenceOptions options) {
    return test::error_of(ErrorKind::usage, [&] { options.validate(); });
  };
  EXPECT_TRUE(test::mentions(refused({.noise = 0.7}), {"--noise", "0.5"}));
  EXPECT_TRUE(test::mentions(refused({.length_bias = -1}), {"--length-bias"}));
  EXPECT_TRUE(test::mentions(refused({.answers = 0}), {"--answers"}));
}

}  // namespace
}  // namespace bireme
