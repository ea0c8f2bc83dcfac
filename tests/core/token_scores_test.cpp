#include "core/ops/loss/token_scores.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/ops/embedding/embedding.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

struct ScoreSizes {
  std::int64_t rows, items, vocabulary, channels;
};

Tensor indices(Memory& memory, std::int64_t count, std::int64_t below, std::int64_t step) {
  const Tensor tensor(memory, {count}, DType::i32);
  for (std::int64_t i = 0; i < count; ++i)
    tensor.data<std::int32_t>()[i] = static_cast<std::int32_t>(i * step % below);
  return tensor;
}

/// Some rows are asked for several times, each time with another target, some never.
OpCase scores_case(const ScoreSizes& s, double soft_cap = 0) {
  return {.inputs = {{random_normal({s.rows, s.channels}, {.seed = 7})}},
          .parameters = {random_normal({s.vocabulary, s.channels}, {.seed = 8})},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            Memory& memory = tape.backend().memory().host();
            const Var rows = gather_rows(tape, x[0], indices(memory, s.items, s.rows, 3));
            const TokenHead head{.weight = p[0], .soft_cap = soft_cap};
            return {token_scores(tape, rows, indices(memory, s.items, s.vocabulary, 5), head)};
          }};
}

class TokenScores : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, TokenScores, on_every_device(), device_name);

TEST_P(TokenScores, GradientsMatchCentralDifferences) {
  for (const ScoreSizes& s : {ScoreSizes{1, 1, 2, 1}, {3, 7, 7, 5}, {8, 6, 16, 8}, {4, 9, 37, 3}}) {
    SCOPED_TRACE(testing::Message() << s.items << " of " << s.rows << " rows");
    expect_gradients(backend(), scores_case(s));
    expect_gradients(backend(), scores_case(s, 2.5));
  }
}

TEST_P(TokenScores, InFp32AndBf16AgreesWithFp64) {
  for (const ScoreSizes& s : {ScoreSizes{3, 7, 7, 5}, {20, 30, 64, 16}}) {
    expect_agrees_with_double(backend(), scores_case(s), DType::f32, 1e-5);
    if (backend().has_fast_bf16()) expect_agrees_with_double(backend(), scores_case(s), DType::bf16, 0.02);
  }
}

TEST_P(TokenScores, SameBitsOnAnyNumberOfThreads) {
  // In fp64, whose products are our own: those in fp32 depend on the number of threads without AVX-512.
  expect_same_bits_on_any_number_of_threads(backend(), scores_case({700, 900, 64, 32}), DType::f64);
}

TEST_P(TokenScores, AreTheSameWhenLogitsDoNotFit) {
  // 1500 × 45000 logits are 270 MB: more than are kept. Scored in two halves, they are.
  const ScoreSizes s{1500, 1500, 45000, 2};
  const OpCase op = scores_case(s, 3);
  const OpResult sliced = run_op(backend(), op, DType::f32);
  OpCase halves = op;
  halves.run = [s](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) {
    Memory& memory = tape.backend().memory().host();
    const Tensor rows = indices(memory, s.items, s.rows, 3),
                 targets = indices(memory, s.items, s.vocabulary, 5);
    std::vector<Var> scores;
    for (const std::int64_t begin : {0, 750})
      scores.push_back(token_scores(tape, gather_rows(tape, x[0], rows.slice(begin, begin + 750)),
                                    targets.slice(begin, begin + 750), {.weight = p[0], .soft_cap = 3}));
    const Tensor both = tape.empty({s.items}, DType::f64);
    copy(scores[0].value(), both.slice(0, 750));
    copy(scores[1].value(), both.slice(750, 1500));
    return std::vector<Var>{
        tape.record("join", {scores[0], scores[1]}, both, [scores](const Tensor& dy, Gradients& into) {
          into.give(scores[0], dy.slice(0, 750));
          into.give(scores[1], dy.slice(750, 1500));
        })};
  };
  const OpResult kept = run_op(backend(), halves, DType::f32);
  expect_close(sliced.outputs[0], kept.outputs[0], 1e-6);
  expect_close(sliced.input_gradients[0], kept.input_gradients[0], 1e-5);
  expect_close(sliced.parameter_gradients[0], kept.parameter_gradients[0], 1e-5);
}

TEST_P(TokenScores, GatheringNamesARowThatIsNotThere) {
  Tape tape(backend());
  const Var x = tape.leaf(random_normal({3, 2}));
  const auto message = error_of(ErrorKind::data, [&] { gather_rows(tape, x, indices(host(), 2, 5, 4)); });
  EXPECT_TRUE(mentions(message, {"row 4"}));
}

}  // namespace
}  // namespace bireme::test
