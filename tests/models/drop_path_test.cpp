#include "models/drop_path.h"

#include <gtest/gtest.h>

namespace bireme::test {
namespace {

TEST(DropPath, RateRisesFromTheFirstBlockToTheLast) {
  EXPECT_EQ(drop_rate(0.3, 0, 4), 0);
  EXPECT_DOUBLE_EQ(drop_rate(0.3, 1, 4), 0.1);
  EXPECT_DOUBLE_EQ(drop_rate(0.3, 3, 4), 0.3);
  EXPECT_EQ(drop_rate(0.3, 0, 1), 0);
}

TEST(DropPath, DrawsBelongToRecordsAndNotToPlaces) {
  const KeepBranch all = keyed_drop_path({.seed = 3, .step = 5, .records = {10, 11, 12, 13}}, 0.5, 8);
  const KeepBranch second_half = keyed_drop_path({.seed = 3, .step = 5, .records = {12, 13}}, 0.5, 8);
  for (int block = 0; block < 8; ++block)
    for (int branch = 0; branch < 2; ++branch)
      for (int crop = 0; crop < 3; ++crop)
        for (int i = 0; i < 2; ++i)
          EXPECT_EQ(second_half(block, branch, crop * 2 + i), all(block, branch, crop * 4 + 2 + i));
}

TEST(DropPath, DropsAtItsRateAndDrawsAnewForEverything) {
  constexpr int kImages = 4000, kDepth = 3;
  std::vector<std::int64_t> records(kImages / 2);  // two crops of each
  for (std::size_t i = 0; i < records.size(); ++i) records[i] = static_cast<std::int64_t>(i);
  const KeepBranch now = keyed_drop_path({.seed = 1, .step = 7, .records = records}, 0.4, kDepth);
  const KeepBranch later = keyed_drop_path({.seed = 1, .step = 8, .records = records}, 0.4, kDepth);
  int kept = 0, kept_mlp = 0, both = 0, both_steps = 0, both_crops = 0, first = 0;
  for (int i = 0; i < kImages; ++i) {
    const bool attention = now(kDepth - 1, 0, i);
    kept += attention;
    kept_mlp += now(kDepth - 1, 1, i);
    both += attention && now(kDepth - 1, 1, i);
    both_steps += attention && later(kDepth - 1, 0, i);
    both_crops += attention && now(kDepth - 1, 0, (i + kImages / 2) % kImages);
    first += now(0, 0, i);
  }
  // Standard deviations are √(4000 · 0.6 · 0.4) = 31 for one draw and √(4000 · 0.36 · 0.64) = 30 for two;
  // crops come twice.
  EXPECT_NEAR(kept, 2400, 155);
  EXPECT_NEAR(kept_mlp, 2400, 155);
  EXPECT_NEAR(both, 1440, 150);
  EXPECT_NEAR(both_steps, 1440, 150);
  EXPECT_NEAR(both_crops, 1440, 215);
  EXPECT_EQ(first, kImages);
}

TEST(DropPath, FactorsKeepTheExpectation) {
  const auto memory = make_host_memory();
  const KeepBranch keep = [](int, int, std::int64_t image) { return image != 1; };
  const Tensor factors = branch_factors(*memory, keep, 0.2, 0, 0,
                                        {{.count = 2, .length = 3}, {.count = 1, .length = 2}}, DType::f32);
  const std::vector<float> expected = {1.25f, 1.25f, 1.25f, 0, 0, 0, 1.25f, 1.25f};
  EXPECT_EQ(std::vector<float>(factors.values<float>().begin(), factors.values<float>().end()), expected);
  EXPECT_FALSE(branch_factors(*memory, {}, 0.2, 0, 0, {{.count = 1, .length = 1}}, DType::f32).defined());
  EXPECT_FALSE(branch_factors(*memory, keep, 0, 0, 0, {{.count = 1, .length = 1}}, DType::f32).defined());
}

}  // namespace
}  // namespace bireme::test
