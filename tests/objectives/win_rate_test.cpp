#include "objectives/evaluate/win_rate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/base/error.h"
#include "objectives/evaluate/correlation.h"
#include "tests/support/golden.h"

namespace bireme {
namespace {

using test::Golden;

TEST(WinRate, MatchesGolden) {
  const Golden golden("alignment/win_rate.h5");
  const auto a = golden.numbers("inputs/scores_a"), b = golden.numbers("inputs/scores_b"),
             length_a = golden.numbers("inputs/lengths_a"), length_b = golden.numbers("inputs/lengths_b");
  std::vector<Contest> contests;
  for (std::size_t i = 0; i < a.size(); ++i)
    contests.push_back({.score_a = a[i],
                        .score_b = b[i],
                        .length_a = static_cast<std::int64_t>(length_a[i]),
                        .length_b = static_cast<std::int64_t>(length_b[i])});
  const WinRate result = win_rate(
      contests, {.tie_band = golden.number("config", "tie_band"), .ridge = golden.number("config", "ridge")});
  constexpr double tolerance = 1e-12;
  EXPECT_NEAR(result.value, golden.number("outputs/win_rate"), tolerance);
  EXPECT_NEAR(result.error, golden.number("outputs/standard_error"), tolerance);
  EXPECT_NEAR(result.soft, golden.number("outputs/soft_win_rate"), tolerance);
  EXPECT_NEAR(result.length_controlled, golden.number("outputs/length_controlled_win_rate"), tolerance);
  const auto coefficients = golden.numbers("outputs/length_coefficients");
  EXPECT_NEAR(result.length_coefficients[0], coefficients[0], tolerance);
  EXPECT_NEAR(result.length_coefficients[1], coefficients[1], tolerance);
}

TEST(WinRate, IdenticalTextsAreTiesAndOneSidedResultsStayFinite) {
  const std::vector<Contest> same{
      {.score_a = 3, .score_b = -3, .length_a = 5, .length_b = 5, .is_identical = true}};
  EXPECT_EQ(win_rate(same).value, 0.5);
  EXPECT_EQ(win_rate(same).soft, 0.5);
  EXPECT_EQ(win_rate(same).ties, 1);
  const std::vector<Contest> won(20, {.score_a = 5, .score_b = -5, .length_a = 9, .length_b = 4});
  EXPECT_EQ(win_rate(won).value, 1);
  EXPECT_GT(win_rate(won).length_controlled, 0.99);
  EXPECT_TRUE(std::isfinite(win_rate(won).length_controlled));
  EXPECT_THROW(win_rate({}), Error);
}

TEST(BradleyTerry, MatchesGolden) {
  const Golden golden("alignment/bradley_terry.h5");
  const auto chosen = golden.numbers("inputs/chosen_scores"),
             rejected = golden.numbers("inputs/rejected_scores");
  const BradleyTerry result = bradley_terry(chosen, rejected, golden.number("config", "centre"));
  EXPECT_NEAR(result.loss, golden.number("outputs/loss"), 1e-12);
  EXPECT_NEAR(result.accuracy, golden.number("outputs/accuracy"), 1e-12);
  const auto losses = golden.numbers("outputs/losses"), dchosen = golden.numbers("grads/chosen_scores"),
             drejected = golden.numbers("grads/rejected_scores");
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    EXPECT_NEAR(result.losses[i], losses[i], 1e-12);  // without the term that pins the mean
    EXPECT_NEAR(result.dchosen[i], dchosen[i], 1e-12);
    EXPECT_NEAR(result.drejected[i], drejected[i], 1e-12);
  }
}

TEST(JudgeCheck, HearsOnlyJudgesThatAreNotFooledByLength) {
  // Right on 80 of 100 pairs, but on those with the shorter chosen answer no better than a coin.
  std::vector<JudgedPair> pairs;
  for (int i = 0; i < 60; ++i)
    pairs.push_back({.chosen = 1, .rejected = 0, .chosen_length = 9, .rejected_length = 5});
  for (int i = 0; i < 40; ++i)
    pairs.push_back(
        {.chosen = i % 2 == 0 ? 1.0 : -1.0, .rejected = 0, .chosen_length = 5, .rejected_length = 9});
  const JudgeCheck check = check_judge(pairs);
  EXPECT_DOUBLE_EQ(check.accuracy, 0.8);
  EXPECT_DOUBLE_EQ(check.shorter_accuracy, 0.5);
  EXPECT_GT(check.interval.low, 0.5);
  EXPECT_FALSE(check.is_reliable());
  // Wilson's interval of 80 in 100, as tables have it.
  EXPECT_NEAR(check.interval.low, 0.7112, 1e-4);
  EXPECT_NEAR(check.interval.high, 0.8666, 1e-4);
}

TEST(Judges, CountAlikeWhateverTheirScale) {
  const std::vector<std::vector<double>> scores{{1, 2, 3}, {100, 300, 200}};
  const std::vector<double> mean = mean_of_standardized(scores);
  const double unit = std::sqrt(1.5);
  EXPECT_NEAR(mean[0], -unit, 1e-12);
  EXPECT_NEAR(mean[1], unit / 2, 1e-12);
  EXPECT_NEAR(mean[2], unit / 2, 1e-12);
  const std::vector<std::vector<double>> margins{{1, -1, 2, 0}, {3, -2, -1, 0}};
  EXPECT_DOUBLE_EQ(agreement(margins), 0.5);
}

TEST(Correlation, FindsWhereAccuracyAndWinRatePart) {
  EXPECT_NEAR(*spearman(std::vector<double>{1, 2, 3, 4}, std::vector<double>{1, 8, 27, 64}), 1, 1e-12);
  EXPECT_EQ(average_ranks(std::vector<double>{5, 1, 5}), (std::vector<double>{2.5, 1, 2.5}));
  EXPECT_FALSE(pearson(std::vector<double>{1, 1}, std::vector<double>{1, 2}));
  EXPECT_EQ(median_of_three(std::vector<double>{0, 9, 1, 2}), (std::vector<double>{0, 1, 2, 2}));
  const std::vector<double> accuracy{.50, .51, .52, .53, .54, .55, .56, .57, .58, .59},
      win_rate{.50, .53, .55, .58, .60, .59, .57, .55, .54, .50};
  const TrainingCorrelation found = correlate(accuracy, win_rate);
  EXPECT_EQ(found.turn, 4u);
  EXPECT_NEAR(*found.until_turn.spearman, 1, 1e-12);
  EXPECT_NEAR(*found.after_turn.spearman, -1, 1e-12);
  EXPECT_TRUE(found.shows_pattern());
  const TrainingCorrelation few = correlate(std::span(accuracy).first(6), std::span(win_rate).first(6));
  EXPECT_FALSE(few.after_turn.pearson) << "too few";
  EXPECT_FALSE(few.shows_pattern());
}

TEST(Correlation, IsAsCertainAsThereArePairsAndPrompts) {
  // Accuracy rises throughout; the win rate rises up to the fifth evaluation and falls behind it.
  const auto made_up = [](int count) {
    std::vector<SingleOutcomes> evaluations;
    for (int t = 0; t < 10; ++t) {
      SingleOutcomes& one = evaluations.emplace_back();
      const int right = count * (50 + 4 * t) / 100, wins = count * (70 - 5 * std::abs(t - 4)) / 100;
      for (int i = 0; i < count; ++i) {
        one.right.push_back(i < right ? 1 : 0);
        one.wins.push_back(i < wins ? 1 : 0);
      }
    }
    return evaluations;
  };
  const CorrelationIntervals many = bootstrap_correlation(made_up(1000), 4, 300),
                             few = bootstrap_correlation(made_up(20), 4, 300);
  ASSERT_TRUE(many.whole && many.until_turn && many.after_turn && few.until_turn);
  EXPECT_GT(many.until_turn->low, 0.9);
  EXPECT_LT(many.after_turn->high, -0.9);
  EXPECT_LE(few.until_turn->low, many.until_turn->low);
  EXPECT_LE(many.whole->low, many.whole->high);
  const CorrelationIntervals again = bootstrap_correlation(made_up(20), 4, 300);
  EXPECT_EQ(again.whole->low, few.whole->low);
  const std::vector<SingleOutcomes> all = made_up(20);
  EXPECT_FALSE(bootstrap_correlation(std::span(all).first(3), 1, 50).whole) << "too few evaluations";
}

}  // namespace
}  // namespace bireme
