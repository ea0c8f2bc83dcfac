#include "core/data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/support/expect_error.h"

namespace bireme {
namespace {

std::vector<std::int64_t> epoch_of(std::int64_t records, std::uint64_t seed, std::uint64_t epoch) {
  const Permutation permutation(records, seed, epoch);
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < records; ++i) order.push_back(permutation(i));
  return order;
}

TEST(Permutation, VisitsEveryRecordOnce) {
  std::vector<std::int64_t> sizes(130);
  std::iota(sizes.begin(), sizes.end(), 1);
  for (std::int64_t n : {255, 256, 257, 1000, 1023, 1024, 1025, 2000, 4095, 4096, 4097}) sizes.push_back(n);
  for (const std::int64_t n : sizes) {
    std::vector<std::int64_t> order = epoch_of(n, 7, 3);
    std::sort(order.begin(), order.end());
    for (std::int64_t i = 0; i < n; ++i) ASSERT_EQ(order[i], i) << "of " << n;
  }
}

TEST(Permutation, StaysInsideHugeDatasets) {
  const std::int64_t n = (std::int64_t{1} << 40) + 12345;
  const Permutation permutation(n, 1, 2);
  std::vector<std::int64_t> seen;
  for (std::int64_t i = 0; i < 1000; ++i) seen.push_back(permutation(n - 1 - i));
  std::sort(seen.begin(), seen.end());
  EXPECT_GE(seen.front(), 0);
  EXPECT_LT(seen.back(), n);
  EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
}

TEST(Permutation, DependsOnSeedAndEpochAndOnNothingElse) {
  EXPECT_EQ(epoch_of(1000, 1, 1), epoch_of(1000, 1, 1));
  EXPECT_NE(epoch_of(1000, 1, 1), epoch_of(1000, 1, 2));
  EXPECT_NE(epoch_of(1000, 1, 1), epoch_of(1000, 2, 1));
  // Two random permutations agree in one place on average; ten would have a probability of about 1e-7.
  const auto a = epoch_of(1000, 1, 1), b = epoch_of(1000, 1, 2);
  int same = 0;
  for (int i = 0; i < 1000; ++i) same += a[i] == b[i];
  EXPECT_LT(same, 10);
}

/// Chi squared of how often record r stands at position p over the epochs. Under uniformity its mean is
/// (n-1)² and its deviation √2·(n-1); the bound is five deviations away.
TEST(Permutation, PutsEveryRecordEverywhereEquallyOften) {
  for (const int n : {2, 3, 5, 10, 16, 33}) {
    const int epochs = 200 * n;
    std::vector<int> count(n * n);
    for (int epoch = 0; epoch < epochs; ++epoch) {
      const auto order = epoch_of(n, 11, epoch);
      for (int p = 0; p < n; ++p) ++count[p * n + order[p]];
    }
    double chi_squared = 0;
    for (const int c : count) chi_squared += (c - 200.0) * (c - 200.0) / 200.0;
    EXPECT_LT(chi_squared, (n - 1.0) * (n - 1) + 5 * std::sqrt(2.0) * (n - 1) + 5) << n << " records";
  }
}

/// Neighbours in the dataset must not stay neighbours in the order: |difference| of a shuffle is below n/100
/// in 2 % of the pairs; 4 % is seven deviations away.
TEST(Permutation, TearsNeighboursApart) {
  const auto order = epoch_of(2000, 5, 0);
  int close = 0;
  for (int i = 1; i < 2000; ++i) close += std::abs(order[i] - order[i - 1]) < 20;
  EXPECT_LT(close, 80);
}

TEST(Sampler, AnyNumberOfRanksCoversTheSameBatchInTheSameOrder) {
  const Sampler sampler({.records = 100, .batch_size = 12, .seed = 3});
  for (const std::int64_t step : {0, 7, 8, 20}) {
    const auto whole = sampler.share(step, 0, 1);
    ASSERT_EQ(whole.records.size(), 12u);
    EXPECT_EQ(whole.epoch, static_cast<std::uint64_t>(step / 8));
    for (const int ranks : {2, 3, 5, 12}) {
      std::vector<std::int64_t> joined;
      for (int rank = 0; rank < ranks; ++rank) {
        const auto part = sampler.share(step, rank, ranks);
        EXPECT_EQ(part.epoch, whole.epoch);
        joined.insert(joined.end(), part.records.begin(), part.records.end());
      }
      EXPECT_EQ(joined, whole.records) << ranks << " ranks, step " << step;
    }
  }
}

TEST(Sampler, DropsThePartialBatchAndRepeatsNoRecordInAnEpoch) {
  const Sampler sampler({.records = 103, .batch_size = 10, .seed = 3});
  EXPECT_EQ(sampler.iterations_per_epoch(), 10);
  std::vector<std::int64_t> seen;
  for (int step = 10; step < 20; ++step)
    for (const std::int64_t record : sampler.share(step, 0, 1).records) seen.push_back(record);
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
  EXPECT_EQ(seen.size(), 100u);
}

TEST(Sampler, KeepsTheOrderWhenAskedTo) {
  const Sampler sampler({.records = 10, .batch_size = 4, .seed = 3, .shuffled = false});
  EXPECT_EQ(sampler.share(1, 0, 1).records, (std::vector<std::int64_t>{4, 5, 6, 7}));
  EXPECT_EQ(sampler.share(2, 1, 2).records, (std::vector<std::int64_t>{2, 3}));  // the next epoch
}

TEST(Sampler, RefusesADatasetSmallerThanABatch) {
  EXPECT_TRUE(test::mentions(
      test::error_of(ErrorKind::usage, [] { Sampler({.records = 9, .batch_size = 10, .seed = 0}); }),
      {"9 records", "batch of 10", "at most 9"}));
}

}  // namespace
}  // namespace bireme
