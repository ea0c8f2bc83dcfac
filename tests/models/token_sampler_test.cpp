#include "models/decoding/token_sampler.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/expect_error.h"
#include "tests/support/golden.h"

namespace bireme::test {
namespace {

TEST(TokenSampler, MatchesTheReferencesFiltersAndDraws) {
  for (const std::string name : {"temperature", "top_k_top_p", "min_p"}) {
    SCOPED_TRACE(name);
    const Golden golden("llama/sampling_" + name + ".h5");
    const auto setting = [&](const char* key) { return golden.number("config", key); };
    const SamplingOptions options{.temperature = setting("temperature"),
                                  .top_k = static_cast<std::int64_t>(setting("top_k")),
                                  .top_p = setting("top_p"),
                                  .min_p = setting("min_p")};
    const Tensor logits = golden.tensor("inputs/logits"), uniform = golden.tensor("inputs/uniform");
    const Tensor expected = golden.tensor("outputs/probabilities"), tokens = golden.tensor("outputs/token");
    for (std::int64_t row = 0; row < logits.rows(); ++row) {
      const std::vector<Candidate> left = candidates(logits.slice(row, row + 1).values<float>(), options);
      double total = 0;
      for (const Candidate& c : left) total += c.weight;
      std::vector<double> probabilities(static_cast<std::size_t>(logits.channels()), 0);
      for (const Candidate& c : left) probabilities[static_cast<std::size_t>(c.token)] = c.weight / total;
      // The reference's filters ran in fp32.
      for (std::int64_t v = 0; v < logits.channels(); ++v)
        ASSERT_NEAR(probabilities[static_cast<std::size_t>(v)],
                    expected.data<double>()[row * logits.channels() + v], 1e-6)
            << "row " << row << ", token " << v;
      EXPECT_EQ(draw(left, uniform.data<double>()[row]), tokens.data<std::int64_t>()[row]) << "row " << row;
    }
  }
}

TEST(TokenSampler, ZeroTemperatureTakesTheSmallestOfTheLargest) {
  std::vector<float> logits = {1, 3, -2, 3};
  EXPECT_EQ(sample(logits, {}, 0, 0, {.temperature = 0}), 1);
}

TEST(TokenSampler, PenaltyMakesSeenTokensLessLikelyWhateverTheirSign) {
  std::vector<float> logits = {2, -1, 1.5};
  const std::vector<std::int32_t> seen = {0, 1, 0};
  EXPECT_EQ(sample(logits, seen, 0, 0, {.temperature = 0, .repetition_penalty = 2}), 2);
  EXPECT_EQ(logits, (std::vector<float>{1, -2, 1.5}));
}

TEST(TokenSampler, DrawsAreKeyedBySeedSequenceAndPosition) {
  const std::vector<float> logits(1000, 0.0F);
  const auto token = [&](std::int64_t sequence, std::int64_t position, std::uint64_t seed) {
    std::vector<float> row = logits;
    return sample(row, {}, sequence, position, {.seed = seed});
  };
  EXPECT_EQ(token(3, 7, 1), token(3, 7, 1));
  EXPECT_NE(token(3, 7, 1), token(4, 7, 1));
  EXPECT_NE(token(3, 7, 1), token(3, 8, 1));
  EXPECT_NE(token(3, 7, 1), token(3, 7, 2));
}

TEST(TokenSampler, DrawnSharesAreTheProbabilities) {
  const std::vector<float> logits = {std::log(0.5F), std::log(0.3F), std::log(0.2F)};
  std::vector<int> counts(3, 0);
  constexpr int draws = 20000;
  for (int i = 0; i < draws; ++i) {
    std::vector<float> row = logits;
    ++counts[static_cast<std::size_t>(sample(row, {}, 0, i, {}))];
  }
  // Four standard deviations of a share of one half over 20,000 draws.
  EXPECT_NEAR(counts[0] / double{draws}, 0.5, 0.0142);
  EXPECT_NEAR(counts[1] / double{draws}, 0.3, 0.0142);
}

TEST(TokenSampler, SettingsThatCannotBeAreNamed) {
  const auto error = [](const SamplingOptions& options) {
    return error_of(ErrorKind::usage, [&] { options.validate(); });
  };
  EXPECT_TRUE(mentions(error({.top_p = 0}), {"top-p is 0"}));
  EXPECT_TRUE(mentions(error({.temperature = -1}), {"temperature is -1"}));
}

}  // namespace
}  // namespace bireme::test
