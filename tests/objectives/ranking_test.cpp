#include "objectives/evaluate/ranking.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/expect_error.h"
#include "tests/support/golden.h"

namespace bireme {
namespace {

using test::Golden;

/// Reals agree to 1e-12 in double, as the fixture states; counts and shares exactly.
constexpr double kReal = 1e-12;

/// The pairs of ranking.h5: votes of four raters say which answer is the chosen one.
std::vector<RankedPair> golden_pairs(const Golden& golden, std::vector<int>& preferred) {
  const auto policy_1 = golden.numbers("inputs/policy_logps_1"),
             policy_2 = golden.numbers("inputs/policy_logps_2"),
             reference_1 = golden.numbers("inputs/reference_logps_1"),
             reference_2 = golden.numbers("inputs/reference_logps_2"),
             tokens_1 = golden.numbers("inputs/tokens_1"), tokens_2 = golden.numbers("inputs/tokens_2"),
             votes = golden.numbers("inputs/votes_1");
  const double raters = golden.number("config", "raters");
  std::vector<RankedPair> pairs;
  for (std::size_t i = 0; i < votes.size(); ++i) {
    const double share = votes[i] / raters;
    RankedPair pair{.record = static_cast<std::int64_t>(i),
                    .chosen = {policy_1[i], static_cast<std::int64_t>(tokens_1[i])},
                    .rejected = {policy_2[i], static_cast<std::int64_t>(tokens_2[i])},
                    .reference = std::array{reference_1[i], reference_2[i]},
                    .preference = share};
    if (share <= 0.5) {  // a tie has no order; the fixture takes the second answer first
      std::swap(pair.chosen, pair.rejected);
      std::swap((*pair.reference)[0], (*pair.reference)[1]);
      pair.preference = 1 - share;
    }
    preferred.push_back(share == 0.5 ? 0 : share > 0.5 ? 1 : 2);
    pairs.push_back(pair);
  }
  return pairs;
}

TEST(Ranking, MatchesGolden) {
  const Golden golden("alignment/ranking.h5");
  std::vector<int> preferred;
  const std::vector<RankedPair> pairs = golden_pairs(golden, preferred);
  const RankingOptions options{.betas = golden.numbers("config", "betas"),
                               .epsilon = golden.number("config", "epsilon"),
                               .beta = golden.number("config", "beta"),
                               .tie_tolerance = golden.number("config", "tie_tolerance")};
  const RankingResult result = evaluate_ranking(pairs, options);
  EXPECT_EQ(result.count, golden.number("outputs/count"));
  EXPECT_EQ(result.count + result.ties, 64);
  EXPECT_EQ(result.accuracy.plain, golden.number("outputs/ranking_accuracy"));
  EXPECT_EQ(result.accuracy.normalized, golden.number("outputs/ranking_accuracy_normalised"));
  ASSERT_TRUE(result.with_ties && result.reference && result.idealized && result.idealized_normalized);
  EXPECT_EQ(result.with_ties->plain, golden.number("outputs/ranking_accuracy_with_ties"));
  EXPECT_EQ(result.with_ties->normalized, golden.number("outputs/ranking_accuracy_with_ties_normalised"));
  EXPECT_EQ(result.reference->plain, golden.number("outputs/reference_ranking_accuracy"));
  EXPECT_EQ(result.reference->normalized, golden.number("outputs/reference_ranking_accuracy_normalised"));
  EXPECT_EQ(result.reward_accuracy, golden.number("outputs/reward_accuracy"));
  EXPECT_EQ(result.idealized->values, golden.numbers("outputs/idealised"));
  EXPECT_EQ(result.idealized_normalized->values, golden.numbers("outputs/idealised_normalised"));
  EXPECT_EQ(result.idealized->minimum, golden.number("outputs/idealised_min"));
  EXPECT_EQ(result.idealized->median, golden.number("outputs/idealised_median"));
  EXPECT_EQ(result.idealized->maximum, golden.number("outputs/idealised_max"));
  const auto gap = golden.numbers("outputs/gap"), normalized = golden.numbers("outputs/gap_normalised");
  for (std::size_t b = 0; b < gap.size(); ++b) {
    EXPECT_NEAR(result.idealized->gaps[b], gap[b], kReal);
    EXPECT_NEAR(result.idealized_normalized->gaps[b], normalized[b], kReal);
  }
  const auto expected_preferred = golden.numbers("outputs/preferred"),
             category = golden.numbers("outputs/category"), log_ratio = golden.numbers("outputs/log_ratio"),
             reference = golden.numbers("outputs/reference_log_ratio"),
             threshold = golden.numbers("outputs/dpo_flip_threshold"),
             loss = golden.numbers("outputs/dpo_loss");
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    SCOPED_TRACE(i);
    const PairOutcome& outcome = result.outcomes[i];
    EXPECT_EQ(preferred[i], expected_preferred[i]);
    EXPECT_EQ(static_cast<int>(outcome.category), category[i]);
    EXPECT_NEAR(outcome.log_ratio, log_ratio[i], kReal * 100);  // of magnitude 100
    EXPECT_NEAR(outcome.reference_log_ratio, reference[i], kReal * 100);
    EXPECT_NEAR(outcome.flip_threshold, threshold[i], kReal * 10);
    EXPECT_NEAR(outcome.dpo_loss, loss[i], kReal * 10);
  }
}

/// The optimum of DPO on proportions α, found by descent, has the ideal log ratio (theorem 3.1).
TEST(Ranking, IdealIsWhereTheExpectedLossIsLeast) {
  const Golden golden("alignment/ranking.h5");
  std::vector<int> preferred;
  const std::vector<RankedPair> pairs = golden_pairs(golden, preferred);
  const std::vector<double> simulated = golden.numbers("outputs/simulated_log_ratio");
  const double beta = golden.number("config", "beta"), epsilon = golden.number("config", "epsilon");
  std::int64_t right = 0, count = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (preferred[i] == 0) continue;
    right += simulated[i] > 0;
    ++count;
  }
  const RankingResult result = evaluate_ranking(pairs, {.betas = {beta}, .epsilon = epsilon});
  EXPECT_EQ(result.idealized->values.at(0), static_cast<double>(right) / static_cast<double>(count));
}

/// R = 1 exactly when the loss is at or below the pair's threshold (theorem 4.1).
TEST(Ranking, AThresholdTellsWhetherAPairIsRankedRight) {
  const Golden golden("alignment/ranking.h5");
  std::vector<int> preferred;
  const RankingResult result = evaluate_ranking(golden_pairs(golden, preferred));
  int right = 0, wrong = 0;
  for (const PairOutcome& outcome : result.outcomes) {
    if (outcome.category == RankingCategory::tie || outcome.log_ratio == 0) continue;
    const bool is_right = outcome.log_ratio > 0;
    EXPECT_EQ(is_right, outcome.dpo_loss < outcome.flip_threshold);
    ++(is_right ? right : wrong);
  }
  EXPECT_GT(right, 10);
  EXPECT_GT(wrong, 10);
}

TEST(Ranking, OfManyAnswersMatchesGolden) {
  const Golden golden("alignment/ranking_many.h5");
  const auto sums = golden.numbers("inputs/logps"), scores = golden.numbers("inputs/scores"),
             tokens = golden.numbers("inputs/tokens");
  std::vector<RankedAnswers> prompts(sums.size() / 3);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    prompts[i / 3].answers.push_back({sums[i], static_cast<std::int64_t>(tokens[i])});
    prompts[i / 3].scores.push_back(scores[i]);
  }
  const ManyRankingResult result = evaluate_ranking(prompts);
  EXPECT_EQ(result.prompts, 40);
  EXPECT_EQ(result.exact_match.plain, golden.number("outputs/exact_match"));
  EXPECT_EQ(result.exact_match.normalized, golden.number("outputs/exact_match_normalised"));
  EXPECT_EQ(result.pairwise.plain, golden.number("outputs/pairwise"));
  EXPECT_EQ(result.pairwise.normalized, golden.number("outputs/pairwise_normalised"));
}

TEST(Ranking, SingleRatersHaveNoIdealUnlessProportionsAreAssumed) {
  const std::vector<RankedPair> pairs{
      {.chosen = {-10, 4}, .rejected = {-9, 3}, .reference = std::array{-10.0, -9.0}},
      {.chosen = {-5, 4}, .rejected = {-5, 4}, .reference = std::array{-6.0, -4000.0}}};
  const RankingResult plain = evaluate_ranking(pairs);
  EXPECT_FALSE(plain.idealized);
  EXPECT_EQ(plain.accuracy.plain, 0.5) << "equality counts as right";
  EXPECT_EQ(plain.accuracy.normalized, 1);
  EXPECT_EQ(plain.categories, (std::array<std::int64_t, 4>{1, 0, 0, 1}));
  EXPECT_TRUE(std::isnan(plain.category_loss[1]));
  const RankingResult assumed = evaluate_ranking(pairs, {.betas = {0.1, 100}, .assumed_preference = 0.75});
  ASSERT_TRUE(assumed.idealized);
  EXPECT_EQ(assumed.idealized->values, (std::vector<double>{1, 0.5})) << "a small beta follows the data";
  EXPECT_TRUE(std::isfinite(assumed.outcomes[1].flip_threshold)) << "c of thousands does not overflow";
}

TEST(Ranking, RefusesWhatHasNoAnswer) {
  EXPECT_THROW(evaluate_ranking(std::span<const RankedPair>{}), Error);
  const std::vector<RankedPair> ties{{.chosen = {-1, 1}, .rejected = {-1, 1}, .preference = 0.5}};
  EXPECT_TRUE(
      test::mentions(test::error_of(ErrorKind::data, [&] { evaluate_ranking(ties); }), {"1 pairs", "ties"}));
  EXPECT_THROW(evaluate_ranking(ties, {.betas = {0}}), Error);
  EXPECT_THROW(evaluate_ranking(std::span<const RankedAnswers>{}), Error);
}

}  // namespace
}  // namespace bireme
