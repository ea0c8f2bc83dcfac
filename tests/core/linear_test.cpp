#include "core/ops/linear/linear.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

struct Sizes {
  std::int64_t rows, in, out;
};
// Short of, at and past a vector; more rows than a block of the fused product holds.
const std::vector<Sizes> kSizes = {{1, 1, 1}, {3, 7, 5}, {16, 64, 32}, {200, 33, 65}};

OpCase linear_case(const Sizes& s, bool fused) {
  return {.inputs = {{random_normal({s.rows, s.in}, {.seed = 1})}},
          .parameters = {random_normal({s.out, s.in}, {.seed = 2}), random_normal({s.out}, {.seed = 3})},
          .run = [fused](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            return {fused ? linear_gelu(tape, x[0], p[0], p[1]) : linear(tape, x[0], p[0], &p[1])};
          }};
}

OpCase product_case(const Sizes& s) {
  return {
      .inputs = {{random_normal({s.rows, s.in}, {.seed = 1})}, {random_normal({s.out, s.in}, {.seed = 2})}},
      .parameters = {},
      .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
        return {linear(tape, x[0], x[1])};
      }};
}

OpCase squared_relu_case(const Sizes& s) {
  return {.inputs = {{random_normal({s.rows, s.in}, {.seed = 1})}},
          .parameters = {random_normal({s.out, s.in}, {.seed = 2})},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            return {linear_squared_relu(tape, x[0], p[0])};
          }};
}

/// A weight used twice, and an input used twice: second contributions add to the first.
OpCase shared_case() {
  return {.inputs = {{random_normal({5, 9}, {.seed = 1})}},
          .parameters = {random_normal({9, 9}, {.seed = 2}), random_normal({9}, {.seed = 3})},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            const Var once = linear_gelu(tape, x[0], p[0], p[1]);
            return {linear(tape, once, p[0], &p[1]), linear(tape, x[0], p[0], nullptr)};
          }};
}

class Linear : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, Linear, on_every_device(), device_name);

TEST_P(Linear, GradientsMatchCentralDifferences) {
  for (const Sizes& sizes : {kSizes[0], kSizes[1], kSizes[2]}) {
    expect_gradients(backend(), linear_case(sizes, false));
    expect_gradients(backend(), linear_case(sizes, true));
    expect_gradients(backend(), product_case(sizes));
    expect_gradients(backend(), squared_relu_case(sizes));
  }
  expect_gradients(backend(), shared_case());
}

TEST_P(Linear, AgreesWithDouble) {
  for (const Sizes& sizes : kSizes) {
    for (const OpCase& op : {linear_case(sizes, false), linear_case(sizes, true), product_case(sizes),
                             squared_relu_case(sizes)}) {
      expect_agrees_with_double(backend(), op, DType::f32,
                                2e-6);  // sums of up to 200 products, each rounded to 6e-8
      if (backend().has_fast_bf16())
        expect_agrees_with_double(backend(), op, DType::bf16, 0.015);  // roundings of 2⁻⁹
    }
  }
}

TEST_P(Linear, ARowDoesNotDependOnHowManyAreWithIt) {
  // Decoding: up to eight rows, each of which must come out as if it were alone.
  constexpr std::int64_t kIn = 77, kOut = 43;
  for (const DType type : {DType::f32, DType::bf16}) {
    ParameterSet p;
    Parameter& weight = p.add({.name = "w", .shape = {kOut, kIn}});
    Parameter& bias = p.add({.name = "b", .shape = {kOut}});
    p.build(memory(), {.gradients = false, .bf16_copy = true});
    copy(random_normal({kOut, kIn}, {.seed = 2}), weight.value());
    copy(random_normal({kOut}, {.seed = 3}), bias.value());
    p.refresh_bf16();
    const Tensor x = convert(memory(), random_normal({8, kIn}), type);
    Tape tape(backend(), Tape::Mode::inference);
    const Tensor all = linear(tape, Var(x), weight, &bias).value();
    for (std::int64_t rows = 1; rows < 8; ++rows)
      expect_identical(linear(tape, Var(x.slice(8 - rows, 8)), weight, &bias).value(), all.slice(8 - rows, 8),
                       std::to_string(rows) + " rows");
  }
  for (std::int64_t rows = 1; rows <= 8; ++rows) {
    expect_agrees_with_double(backend(), linear_case({rows, kIn, kOut}, false), DType::f32, 2e-6);
    expect_agrees_with_double(backend(), product_case({rows, kIn, kOut}), DType::f32, 2e-6);
  }
}

TEST_P(Linear, NamesBothShapesWhenTheWeightDoesNotFit) {
  ParameterSet parameters;
  Parameter& weight = parameters.add({.name = "fc.weight", .shape = {4, 6}});
  parameters.build(memory(), {});
  Tape tape(backend());
  const Var x(Tensor(memory(), {2, 5}, DType::f32));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { linear(tape, x, weight, nullptr); }),
                       {"fc.weight", "[4, 6]", "[4, 5]"}));
}

}  // namespace
}  // namespace bireme::test
