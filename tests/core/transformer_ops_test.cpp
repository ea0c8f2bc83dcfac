#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/ops/pointwise/pointwise.h"
#include "core/ops/pointwise/rotary.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

OpCase silu_gate_case(std::int64_t rows, std::int64_t width) {
  return {.inputs = {{random_normal({rows, 2 * width}, {.deviation = 2, .seed = 7})}},
          .parameters = {},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
            return {silu_gate(tape, x[0])};
          }};
}

DType table_type(DType type) { return type == DType::f64 ? DType::f64 : DType::f32; }

/// Two heads are turned, one is not.
OpCase rotary_case(std::int64_t rows, std::int64_t dimension) {
  return {.inputs = {{random_normal({rows, 3 * dimension}, {.seed = 7})}},
          .parameters = {},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType type) -> std::vector<Var> {
            const Tensor positions(tape.backend().memory().host(), {rows}, DType::i32);
            for (std::int64_t r = 0; r < rows; ++r)
              positions.data<std::int32_t>()[r] = static_cast<std::int32_t>(r * 3 % 11);
            const RotaryTable table(tape.backend().memory(), {}, dimension, 11, table_type(type));
            return {rotate(tape, x[0], table, positions, 2)};
          }};
}

class TransformerOps : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, TransformerOps, on_every_device(), device_name);

TEST_P(TransformerOps, GradientsMatchCentralDifferences) {
  for (const std::int64_t width : {1, 7, 16, 33}) {
    SCOPED_TRACE(width);
    expect_gradients(backend(), silu_gate_case(3, width));
    expect_gradients(backend(), rotary_case(5, 2 * width));
    expect_agrees_with_double(backend(), silu_gate_case(9, width), DType::f32, 1e-6);
    expect_agrees_with_double(backend(), silu_gate_case(9, width), DType::bf16, 0.01);
    expect_agrees_with_double(backend(), rotary_case(9, 2 * width), DType::f32, 1e-6);
    expect_agrees_with_double(backend(), rotary_case(9, 2 * width), DType::bf16, 0.01);
  }
}

TEST_P(TransformerOps, SiluGateOfLargeInputsIsFinite) {
  const Tensor x(host(), {1, 8}, DType::f32);
  const float gates[] = {-1000, -90, 90, 1000};
  for (int i = 0; i < 4; ++i) x.data<float>()[i] = gates[i], x.data<float>()[4 + i] = 1;
  Tape tape(backend());
  const Var leaf = tape.leaf(here(x)), y = silu_gate(tape, leaf);
  const Tensor found = on_host(y.value());
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(found.data<float>()[i], gates[i] > 0 ? gates[i] : 0, 1e-36);
  const Tensor ones(memory(), {1, 4}, DType::f32);
  fill(ones, 1);
  tape.backward(y, nullptr, {}, ones);
  const Tensor slope = on_host(tape.gradient(leaf));
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(slope.data<float>()[i], gates[i] > 0 ? 1 : 0, 1e-36);
}

/// [B, T, a], [B, T, b] → [B·T, a + b]
Tensor side_by_side(const Tensor& a, const Tensor& b) {
  const std::int64_t rows = a.rows(), first = a.channels(), second = b.channels();
  const Tensor result(a.memory(), {rows, first + second}, a.dtype());
  copy_columns(a, result, {.columns = first});
  copy_columns(b, result, {.to_column = first, .columns = second});
  return result;
}

TEST_P(TransformerOps, SiluGateMatchesTheReference) {
  const Golden golden("llama/operators.h5");
  const Tensor x = side_by_side(golden.tensor("swiglu/inputs/gate"), golden.tensor("swiglu/inputs/up"));
  const Tensor dx = side_by_side(golden.tensor("swiglu/grads/gate"), golden.tensor("swiglu/grads/up"));
  for (const DType type : {DType::f64, DType::f32}) {
    const double t = type == DType::f64 ? 1e-10 : 1e-5;
    Tape tape(backend());
    const Var leaf = tape.leaf(convert(memory(), x, type)), y = silu_gate(tape, leaf);
    expect_close(y.value(), golden.tensor("swiglu/outputs/y").reshape(y.shape()), t, 0, "y");
    tape.backward(y, nullptr, {},
                  convert(memory(), golden.tensor("swiglu/inputs/cotangent"), type).reshape(y.shape()));
    expect_close(tape.gradient(leaf), dx, t, 0, "gradient");
  }
}

/// [B, H, T, d] → [B·T, H·d]
Tensor rows_of_heads(Memory& memory, const Tensor& x) {
  const std::int64_t B = x.shape()[0], H = x.shape()[1], T = x.shape()[2], d = x.shape()[3];
  const Tensor from = convert(memory, x, DType::f64), to(memory, {B * T, H * d}, DType::f64);
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t h = 0; h < H; ++h)
      for (std::int64_t t = 0; t < T; ++t)
        for (std::int64_t j = 0; j < d; ++j)
          to.data<double>()[((b * T + t) * H + h) * d + j] =
              from.data<double>()[((b * H + h) * T + t) * d + j];
  return to;
}

TEST_P(TransformerOps, RotationMatchesTheReference) {
  const Golden golden("llama/operators.h5");
  const Tensor positions = golden.tensor("rope/inputs/positions"),
               rows(host(), {positions.elements()}, DType::i32);
  for (std::int64_t i = 0; i < rows.elements(); ++i)
    rows.data<std::int32_t>()[i] = static_cast<std::int32_t>(positions.data<std::int64_t>()[i]);
  const std::vector<float> frequencies = rotary_frequencies({}, 8, 0);
  for (std::size_t j = 0; j < 4; ++j)
    EXPECT_FLOAT_EQ(frequencies[j], golden.tensor("rope/outputs/inverse_frequencies").data<float>()[j]);
  for (const DType type : {DType::f64, DType::f32}) {
    const double t = type == DType::f64 ? 1e-10 : 1e-5;
    const RotaryTable table(memory(), {}, 8, 512, type);
    Tape tape(backend());
    const Tensor cotangent =
        convert(memory(), rows_of_heads(host(), golden.tensor("rope/inputs/cotangent")), type);
    const Var leaf =
        tape.leaf(convert(memory(), rows_of_heads(host(), golden.tensor("rope/inputs/x")), type));
    const Var y = rotate(tape, leaf, table, rows, 4);
    expect_close(y.value(), rows_of_heads(host(), golden.tensor("rope/outputs/y")), t, 0, "y");
    tape.backward(y, nullptr, {}, cotangent);
    expect_close(tape.gradient(leaf), rows_of_heads(host(), golden.tensor("rope/grads/x")), t, 0, "gradient");
  }
}

TEST(Rotary, StretchesFrequenciesAsNamed) {
  const std::vector<float> plain = rotary_frequencies({}, 64, 0);
  EXPECT_FLOAT_EQ(plain[0], 1);
  EXPECT_FLOAT_EQ(plain[16], 0.01F);
  EXPECT_FLOAT_EQ(rotary_frequencies({.type = "linear", .factor = 4}, 64, 0)[16], 0.0025F);
  // yarn: the fastest stay, the slowest are divided by the factor.
  const std::vector<float> yarn =
      rotary_frequencies({.type = "yarn", .factor = 8, .original_positions = 2048}, 64, 0);
  EXPECT_FLOAT_EQ(yarn[0], 1);
  EXPECT_FLOAT_EQ(yarn[31], plain[31] / 8);
  // dynamic: as without scaling up to the original context, theta · (8·2 - 7)^(64/62) at twice its length.
  const RotaryOptions dynamic{.type = "dynamic", .factor = 8, .original_positions = 100};
  EXPECT_FLOAT_EQ(rotary_frequencies(dynamic, 64, 100)[5], plain[5]);
  EXPECT_FLOAT_EQ(rotary_frequencies(dynamic, 64, 200)[31],
                  static_cast<float>(std::pow(1e4 * std::pow(9, 64.0 / 62), -62.0 / 64)));
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [] { rotary_frequencies({.type = "longrope"}, 8, 0); }),
                       {"`longrope`"}));
}

TEST_P(TransformerOps, HaveTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16}) {
    expect_same_bits_on_any_number_of_threads(backend(), silu_gate_case(300, 130), type);
    expect_same_bits_on_any_number_of_threads(backend(), rotary_case(300, 64), type);
  }
}

}  // namespace
}  // namespace bireme::test
