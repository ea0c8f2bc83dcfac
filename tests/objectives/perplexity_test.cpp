#include "objectives/evaluate/perplexity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/data/synthetic.h"
#include "core/data/token_writer.h"
#include "tests/support/expect_error.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/xlstm.h"

namespace bireme::test {
namespace {

/// A small model with random weights, and what it says of one window by the plain way: its logits.
class PerplexityTest : public testing::Test {
 protected:
  struct Model : XlstmFixture {
    Model()
        : XlstmFixture({.architecture = XlstmArchitecture::paper,
                        .vocabulary = 12,
                        .channels = 16,
                        .layers = 2,
                        .heads = 2,
                        .pattern = "ms"},
                       DType::f32) {}
  };
  struct Expected {
    double loss = 0, top = 0;
    std::int64_t count = 0;
    void add(const float* logits, std::int32_t target) {
      double total = 0;
      for (int v = 0; v < 12; ++v) total += std::exp(static_cast<double>(logits[v]));
      loss += std::log(total) - static_cast<double>(logits[target]);
      top += logits[target] == *std::max_element(logits, logits + 12) ? 1 : 0;
      ++count;
    }
    void expect_equals(const Perplexity& found) const {
      EXPECT_EQ(found.tokens, count);
      if (count == 0) return;
      EXPECT_NEAR(found.log_loss, loss / static_cast<double>(count), 1e-5);
      EXPECT_NEAR(found.accuracy, top / static_cast<double>(count), 1e-12);
    }
  };

  TokenDataset recall() const {
    const std::filesystem::path path = folder_.path() / "recall";
    prepare_synthetic(
        {.synthetic = recall_, .sequences = kSequences, .output = path, .split = "test", .replace = true});
    return TokenDataset::open(path);
  }
  static constexpr std::int64_t kSequences = 50;
  const SyntheticOptions recall_{.task = SyntheticTask::recall, .length = 20, .pairs = 3, .vocabulary = 12};
  TemporaryFolder folder_;
};

TEST_F(PerplexityTest, ScoresTheMarkedTokensAloneAndByPlace) {
  const TokenDataset dataset = recall();
  Model m;
  constexpr std::int64_t parts = 4;
  Expected all, by_place[parts];
  for (std::int64_t i = 0; i < kSequences; ++i) {
    const SyntheticSequence sequence = make_sequence(recall_, i);
    Tensor tokens(*m.memory, {1, 20}, DType::i32);
    std::copy(sequence.tokens.begin(), sequence.tokens.end(), tokens.data<std::int32_t>());
    const Tensor logits = m.logits(tokens);
    for (std::size_t t = 0; t + 1 < 20; ++t) {
      if (!sequence.targets[t + 1]) continue;
      for (Expected* e : {&all, &by_place[t / 5]})
        e->add(logits.data<float>() + t * 12, sequence.tokens[t + 1]);
    }
  }
  ASSERT_EQ(all.count, 3 * kSequences);
  ASSERT_TRUE(all.top > 0 && all.top < 150) << "the case should have both";
  for (const int ranks : {1, 3})
    run_on_ranks(ranks, [&](Communicator& world) {
      Model mine;
      const Perplexity found =
          evaluate_perplexity(*mine.backend, world, mine.model, dataset,
                              {.length = 20, .stride = 20, .batch_size = 7, .parts = parts});
      all.expect_equals(found);
      ASSERT_EQ(found.parts.size(), 4U);
      for (std::size_t i = 0; i < parts; ++i) by_place[i].expect_equals(found.parts[i]);
      EXPECT_EQ(found.parts[0].tokens, 0) << "the pairs themselves are not asked for";
    });
}

TEST_F(PerplexityTest, ScoresEachTokenOfATextOnceWithAtLeastTheOverlapBeforeIt) {
  const std::filesystem::path path = folder_.path() / "text";
  std::vector<std::int32_t> text;
  for (int i = 0; i < 23; ++i) text.push_back(i * 7 % 12);
  TokenWriter writer({.output = path, .vocabulary = 12});
  writer.append(text);
  writer.finish();
  const TokenDataset dataset = TokenDataset::open(path);
  Model m;
  Expected expected;
  // Windows of 8 every 3 tokens; the last one is what is left.
  std::int64_t scored = 0;
  for (std::int64_t begin = 0; scored < 22; begin += 3) {
    const std::int64_t length = std::min<std::int64_t>(8, 22 - begin);
    Tensor tokens(*m.memory, {1, length}, DType::i32);
    std::copy_n(text.begin() + begin, length, tokens.data<std::int32_t>());
    const Tensor logits = m.logits(tokens);
    for (std::int64_t t = scored - begin; t < length; ++t)
      expected.add(logits.data<float>() + t * 12, text[static_cast<std::size_t>(begin + t + 1)]);
    scored = begin + length;
  }
  ASSERT_EQ(expected.count, 22);
  const auto single = make_single_process();
  expected.expect_equals(evaluate_perplexity(*m.backend, *single, m.model, dataset,
                                             {.length = 8, .stride = 3, .batch_size = 2}));
}

TEST_F(PerplexityTest, RefusesWindowsThatCannotBe) {
  const TokenDataset dataset = recall();
  const Model m;
  const auto single = make_single_process();
  const auto error = [&](const PerplexityOptions& options) {
    return error_of(ErrorKind::usage,
                    [&] { evaluate_perplexity(*m.backend, *single, m.model, dataset, options); });
  };
  EXPECT_TRUE(mentions(error({.length = 40, .stride = 20}), {"windows of 40", "sequences of 20"}));
  EXPECT_TRUE(mentions(error({.length = 20, .stride = 10}), {"windows of 10"}));
  EXPECT_TRUE(mentions(error({.length = 20, .stride = 20, .parts = 21}), {"21 parts"}));
  EXPECT_TRUE(mentions(error({.length = 20, .stride = 21}), {"stride 21"}));
}

}  // namespace
}  // namespace bireme::test
