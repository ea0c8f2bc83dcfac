#include "core/ops/loss/token_loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/ops/linear/linear.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/golden.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

struct LossSizes {
  std::int64_t rows, vocabulary, channels;
};

/// Every third row has no target.
Tensor targets_of(Memory& memory, const LossSizes& sizes) {
  const Tensor targets(memory, {sizes.rows}, DType::i32);
  for (std::int64_t r = 0; r < sizes.rows; ++r)
    targets.data<std::int32_t>()[r] = static_cast<std::int32_t>(r % 3 == 2 ? -1 : r * 5 % sizes.vocabulary);
  return targets;
}

OpCase loss_case(const LossSizes& sizes, double soft_cap = 0, const TokenLossTerms& terms = {.count = 7}) {
  return {.inputs = {{random_normal({sizes.rows, sizes.channels}, {.seed = 7})}},
          .parameters = {random_normal({sizes.vocabulary, sizes.channels}, {.seed = 8})},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            const Tensor targets = targets_of(tape.backend().memory().host(), sizes);
            const TokenHead head{.weight = p[0], .soft_cap = soft_cap};
            return {token_loss(tape, x[0], targets, head, terms).loss};
          }};
}

class TokenLossOp : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, TokenLossOp, on_every_device(), device_name);

TEST_P(TokenLossOp, GradientsMatchCentralDifferences) {
  for (const LossSizes& sizes : {LossSizes{1, 2, 1}, {3, 7, 5}, {5, 16, 8}, {7, 37, 3}}) {
    SCOPED_TRACE(testing::Message() << sizes.rows << " rows, " << sizes.vocabulary << " tokens");
    expect_gradients(backend(), loss_case(sizes));
    expect_gradients(backend(), loss_case(sizes, 2.5));
    expect_gradients(backend(), loss_case(sizes, 0, {.count = 3, .z_loss = 0.1}));
    expect_gradients(backend(), loss_case(sizes, 4, {.count = 3, .z_loss = 0.1}));
  }
}

TEST_P(TokenLossOp, InFp32AndBf16AgreesWithFp64) {
  // bf16: W, hidden and the gradient of the logits are stored with 2⁻⁹; sums are in fp32.
  for (const LossSizes& sizes : {LossSizes{3, 7, 5}, {20, 64, 16}, {9, 129, 33}}) {
    expect_agrees_with_double(backend(), loss_case(sizes), DType::f32, 1e-5);
    expect_agrees_with_double(backend(), loss_case(sizes, 3, {.count = 2, .z_loss = 0.05}), DType::f32, 1e-5);
    if (backend().has_fast_bf16()) expect_agrees_with_double(backend(), loss_case(sizes), DType::bf16, 0.02);
  }
}

TEST_P(TokenLossOp, SlicesMakeUpTheWhole) {
  // 700 rows are two slices. Without gaps in the targets, the same as one product and its cross-entropy.
  const LossSizes sizes{700, 40, 6};
  OpCase sliced = loss_case(sizes, 0, {.count = 700}), whole = sliced;
  const auto all_targets = [sizes](Memory& memory) {
    const Tensor targets(memory, {sizes.rows}, DType::i32);
    for (std::int64_t r = 0; r < sizes.rows; ++r)
      targets.data<std::int32_t>()[r] = static_cast<std::int32_t>(r * r % sizes.vocabulary);
    return targets;
  };
  sliced.run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
    return {
        token_loss(tape, x[0], all_targets(tape.backend().memory().host()), {.weight = p[0]}, {.count = 700})
            .loss};
  };
  whole.run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
    return {cross_entropy(tape, linear(tape, x[0], p[0], nullptr),
                          all_targets(tape.backend().memory().host()), 700)};
  };
  const OpResult a = run_op(backend(), sliced, DType::f64), b = run_op(backend(), whole, DType::f64);
  expect_close(a.outputs[0], b.outputs[0], 1e-13, 0, "loss");
  expect_close(a.input_gradients[0], b.input_gradients[0], 1e-12, 0, "gradient of hidden");
  expect_close(a.parameter_gradients[0], b.parameter_gradients[0], 1e-12, 0, "gradient of W");
}

TEST_P(TokenLossOp, LogProbabilitiesAreThoseOfTheTargets) {
  const LossSizes sizes{8, 12, 4};
  ParameterSet p;
  Parameter& weight = p.add({.name = "w", .shape = {12, 4}, .initial = {Initializer::Law::normal, 1}});
  p.build(memory(), {.master = DType::f64});
  p.initialize(1);
  Tape tape(backend(), Tape::Mode::inference);
  const Tensor hidden = here(random_normal({8, 4})), targets = targets_of(host(), sizes);
  const Tensor logits = on_host(token_logits(backend(), hidden, {.weight = weight}));
  const double* third = logits.data<double>() + 3 * 12;
  targets.data<std::int32_t>()[3] =
      static_cast<std::int32_t>(std::max_element(third, third + 12) - third);  // one that is right
  const TokenLossResult result = token_loss(tape, Var(hidden), targets, {.weight = weight}, {.count = 2});
  const Tensor log_probability = on_host(result.log_probability), tops = on_host(result.is_top);
  double loss = 0;
  int top = 0;
  for (std::int64_t r = 0; r < 8; ++r) {
    const std::int32_t target = targets.data<std::int32_t>()[r];
    double total = 0;
    for (std::int64_t v = 0; v < 12; ++v) total += std::exp(logits.data<double>()[r * 12 + v]);
    const double expected = target < 0 ? 0 : logits.data<double>()[r * 12 + target] - std::log(total);
    EXPECT_NEAR(log_probability.data<float>()[r], expected, 1e-6) << r;
    const double* row = logits.data<double>() + r * 12;
    const bool is_top = target >= 0 && row[target] == *std::max_element(row, row + 12);
    EXPECT_EQ(tops.data<std::uint8_t>()[r], is_top ? 1 : 0) << r;
    top += is_top ? 1 : 0;
    loss -= expected / 2;
  }
  EXPECT_NEAR(on_host(result.loss.value()).data<double>()[0], loss, 1e-13);
  EXPECT_EQ(on_host(result.top).data<double>()[0], top);
  EXPECT_TRUE(top > 0 && top < 8) << "the case should have both";
}

TEST_P(TokenLossOp, L2WrapMatchesTheReferenceAndScalesLikeTheLoss) {
  const Golden golden("rwkv/l2wrap.h5");
  const Tensor logits = golden.tensor("inputs/logits"), targets = golden.tensor("inputs/targets");
  const std::int64_t classes = logits.channels(), rows = logits.rows();
  const auto gradient = [&](DType type, double l2_wrap, double factor, double* loss) {
    ParameterSet p;  // the unit matrix: logits are what goes in
    Parameter& weight = p.add({.name = "w", .shape = {classes, classes}});
    p.build(memory(), {.master = type});
    const Tensor unit(host(), {classes, classes}, DType::f64);
    fill(unit, 0);
    for (std::int64_t i = 0; i < classes; ++i) unit.data<double>()[i * (classes + 1)] = 1;
    copy(unit, weight.value());
    p.begin_gradients();
    Tape tape(backend());
    const Var x = tape.leaf(convert(memory(), logits.reshape({rows, classes}), type));
    const Var value = token_loss(tape, x, targets, {.weight = weight},
                                 {.count = static_cast<double>(rows), .l2_wrap = l2_wrap})
                          .loss;
    *loss = convert(host(), value.value(), DType::f64).data<double>()[0];
    const Tensor seed = tape.empty({}, type);
    fill(seed, factor);
    tape.backward(value, &p, {}, seed);
    return tape.gradient(x).reshape(logits.shape());
  };
  const double expected = golden.tensor("outputs/loss").data<double>()[0],
               wrap = golden.number("config", "factor");
  for (const DType type : {DType::f64, DType::f32}) {
    const double tolerance = type == DType::f64 ? 1e-11 : 1e-6;
    double loss = 0;
    expect_close(gradient(type, wrap, 1, &loss), golden.tensor("grads/logits"), tolerance, 0, "with L2Wrap");
    EXPECT_NEAR(loss, expected, tolerance * expected);
    expect_close(gradient(type, 0, 1, &loss), golden.tensor("grads/logits_without"), tolerance, 0, "without");
    // The reference leaves its term unscaled; with 1/8 of the factor ours is the same.
    expect_close(gradient(type, wrap / 8, 8, &loss), golden.tensor("grads/logits_scaled"), tolerance, 0,
                 "scaled");
  }
}

TEST_P(TokenLossOp, HasTheSameBitsOnAnyNumberOfThreads) {
  // In fp64, whose products are our own: those in fp32 depend on the number of threads without AVX-512.
  expect_same_bits_on_any_number_of_threads(backend(), loss_case({600, 300, 24}), DType::f64);
  if (backend().has_fast_bf16())
    expect_same_bits_on_any_number_of_threads(backend(), loss_case({600, 300, 24}), DType::bf16);
}

}  // namespace
}  // namespace bireme::test
