#include "launch/ranking_figures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "core/data/staged_dataset.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;

MetricHistory made_up_run() {
  MetricHistory run;
  for (int i = 0; i <= 10; ++i) {
    run.curves["ranking_accuracy"].emplace_back(10 * i, 0.5 + 0.01 * i);
    run.curves["ranking_accuracy_normalized"].emplace_back(10 * i, 0.55);
    run.curves["flipped_to_right"].emplace_back(10 * i, 0.02 * i);
    run.curves["flipped_to_wrong"].emplace_back(10 * i, 0.01 * i);
    run.curves["distance_squared"].emplace_back(10 * i, 0.1 * i * i);
  }
  return run;
}

std::vector<JudgedStep> made_up_judgement() {
  std::vector<JudgedStep> judged;
  for (int i = 0; i <= 10; ++i)  // rises to step 50, then falls
    judged.push_back({.step = 10 * i, .win_rate = 0.6 - 0.01 * std::abs(i - 5), .error = 0.02});
  return judged;
}

TEST(RankingFigure, ShowsAccuracyWinRateAndWhereTheyPart) {
  PairFile pairs{.name = "pairs",
                 .chosen_average = {},
                 .rejected_average = {},
                 .shortfall = {-5, 3, 20},
                 .loss = {0.1, 0.7, 2},
                 .log_ratio = {6, -1, -8}};
  const RankingFigure found = ranking_figure(made_up_run(), made_up_judgement(), &pairs, 0.1);
  ASSERT_EQ(found.figure.panels.size(), 4u);
  ASSERT_TRUE(found.correlation);
  EXPECT_EQ(found.correlation->turn, 4u) << "the median of three flattens the peak";
  EXPECT_TRUE(found.correlation->shows_pattern());
  // Shares of what became of pairs add up: at step 100, 20 % were flipped, 40 % stay right, 10 % are lost.
  const Panel& shares = found.figure.panels[2];
  ASSERT_EQ(shares.series.size(), 4u);
  EXPECT_NEAR(shares.series[3].points.back().second, 20, 1e-9);
  EXPECT_NEAR(shares.series[2].points.back().second, 60, 1e-9);
  EXPECT_NEAR(shares.series[1].points.back().second, 70, 1e-9);
  EXPECT_NEAR(shares.series[0].points.back().second, 100, 1e-9);
  // The curve below which a pair is ranked right.
  const auto& [c, loss] = found.figure.panels[3].series.back().points.back();
  EXPECT_NEAR(loss, std::log1p(std::exp(-0.1 * c)), 1e-12);
}

TEST(RankingFigure, DoesWithoutWhatARunDoesNotHave) {
  MetricHistory run;
  run.curves["ranking_accuracy"] = {{0, 0.5}, {10, 0.6}};
  const RankingFigure found = ranking_figure(run, {}, nullptr, 0.1);
  EXPECT_EQ(found.figure.panels.size(), 1u);
  EXPECT_FALSE(found.correlation);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [] { ranking_figure({}, {}, nullptr, 0.1); }),
                       {"no ranking accuracy", "data.validation"}));
}

TEST(CoefficientFigure, SaysWhetherTheFactorGrowsAsTheProbabilityFalls) {
  PairFile unlikely{.name = "step 0"}, likely{.name = "step 0"};
  for (int i = 0; i < 50; ++i) {
    unlikely.chosen_average.push_back(std::log(0.1 + 0.01 * i));
    unlikely.rejected_average.push_back(std::log(0.2));  // below one half: the factor grows as P falls
    likely.chosen_average.push_back(std::log(0.1 + 0.01 * i));
    likely.rejected_average.push_back(std::log(0.8));
  }
  const CoefficientFigure falls = coefficient_figure({unlikely}), rises = coefficient_figure({likely});
  EXPECT_NEAR(*falls.inverse_correlation, 1, 1e-12) << "by construction";
  EXPECT_NEAR(*falls.product_correlation, -1, 1e-12);
  EXPECT_NEAR(*rises.product_correlation, 1, 1e-12);
  EXPECT_TRUE(mentions(falls.outcome, {"grows as P falls", "50 pairs"}));
  EXPECT_TRUE(mentions(rises.outcome, {"shrinks as P falls"}));
  ASSERT_EQ(falls.figure.panels.size(), 4u);
  for (const auto& [p, factor] : falls.figure.panels[0].series[0].points)
    EXPECT_NEAR(factor, 1 / (1 - p), 1e-9);
  EXPECT_THROW(coefficient_figure({}), Error);
}

TEST(PairFiles, AreReadAsRankingWritesThem) {
  const test::TemporaryFolder folder;
  const auto memory = make_host_memory();
  const auto path = folder.path() / "pairs.h5";
  {
    Hdf5Writer file(path);
    const auto write = [&]<class T>(const char* name, const std::vector<T>& values) {
      file.write(name, tensor_of(*memory, values, {std::ssize(values)}));
    };
    write("chosen_log_probability", std::vector<double>{-6, -8});
    write("rejected_log_probability", std::vector<double>{-5, -9});
    write("chosen_tokens", std::vector<std::int64_t>{3, 4});
    write("rejected_tokens", std::vector<std::int64_t>{5, 3});
    write("log_ratio", std::vector<double>{-1, 1});
    file.close();
  }
  const PairFile pairs = read_pairs(path);
  EXPECT_EQ(pairs.chosen_average, (std::vector<double>{-2, -2}));
  EXPECT_EQ(pairs.rejected_average, (std::vector<double>{-1, -3}));
  EXPECT_TRUE(pairs.loss.empty());
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { read_diagnostics(folder.path()); }),
                       {"diagnostics.h5", "--pairs"}));
}

TEST(WinRates, AreReadLineByLine) {
  const test::TemporaryFolder folder;
  const auto path = folder.write("a.jsonl",
                                 "{\"step\": 20, \"judged_win_rate\": 0.6}\n{\"step\": 10, "
                                 "\"judged_win_rate\": 0.5, \"win_rate_error\": 0.1}\n");
  const std::vector<JudgedStep> steps = read_win_rates(path);
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].step, 10);
  EXPECT_EQ(steps[0].error, 0.1);
  const auto bad = folder.write("b.jsonl", "{\"step\": 20}\n");
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { read_win_rates(bad); }), {"b.jsonl:1", "--append"}));
}

TEST(RankingFigure, IsDrawn) {
  if (std::system("gnuplot --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "gnuplot is not installed";
  const test::TemporaryFolder folder;
  const RankingFigure found = ranking_figure(made_up_run(), made_up_judgement(), nullptr, 0.1);
  draw(found.figure, folder.path() / "ranking.png");
  EXPECT_EQ(folder.read("ranking.png").substr(1, 3), "PNG");
}

}  // namespace
}  // namespace bireme
