#include <gtest/gtest.h>

#include <cmath>

#include "core/ops/pointwise/pointwise.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

OpCase skip_gate_case(const Shape& shape) {
  return {.inputs = {{random_normal(shape, {.seed = 1})},
                     {random_normal(shape, {.seed = 2})},
                     {random_normal(shape, {.deviation = 3, .seed = 3})}},
          .parameters = {random_normal({shape.back()}, {.mean = 1, .seed = 4})},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            return {skip_gate(tape, x[0], x[1], p[0], x[2])};
          }};
}

OpCase activation_case(const Shape& shape, Activation activation) {
  return {.inputs = {{random_normal(shape, {.deviation = 2, .seed = 1})}},
          .parameters = {},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
            return {activation_gate(tape, x[0], activation)};
          }};
}

constexpr Activation kActivations[] = {Activation::gelu,         Activation::silu,    Activation::relu,
                                       Activation::squared_relu, Activation::sigmoid, Activation::selu};

class Gates : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, Gates, on_every_device(), device_name);

TEST_P(Gates, GradientsMatchCentralDifferencesAndTypesAgree) {
  for (const Shape& shape : {Shape{1, 2}, Shape{3, 14}, Shape{5, 66}}) {
    std::vector<OpCase> cases{skip_gate_case(shape)};
    for (const Activation activation : kActivations) cases.push_back(activation_case(shape, activation));
    for (const OpCase& op : cases) {
      expect_gradients(backend(), op);
      expect_agrees_with_double(backend(), op, DType::f32, 1e-5);
      expect_agrees_with_double(backend(), op, DType::bf16, 0.02);
    }
  }
}

TEST_P(Gates, ActivationsHaveTheirValues) {
  const double x = -1.5, e = std::exp(x), sigmoid = e / (1 + e);
  const double expected[] = {
      x * 0.5 * std::erfc(1.5 / std::sqrt(2.0)), x * sigmoid, 0, 0, sigmoid, 1.7580993408473766 * (e - 1)};
  for (std::size_t i = 0; i < 6; ++i) {
    const Tensor in(host(), {1, 2}, DType::f64);
    in.data<double>()[0] = x;
    in.data<double>()[1] = 2;
    Tape tape(backend(), Tape::Mode::inference);
    const Tensor y = on_host(activation_gate(tape, Var(here(in)), kActivations[i]).value());
    EXPECT_NEAR(y.data<double>()[0], 2 * expected[i], 1e-12);
  }
}

TEST_P(Gates, LargeInputsNeitherOverflowNorBecomeNan) {
  const Tensor x(memory(), {1, 2}, DType::f32), skip_of(memory(), {1, 1}, DType::f32);
  ParameterSet p;
  Parameter& skip = p.add({.name = "s", .shape = {1}});
  p.build(memory(), {});
  fill(skip.value(), 0);
  fill(skip_of, 1);
  Tape tape(backend(), Tape::Mode::inference);
  for (const double z : {-1e4, 1e4}) {
    const Tensor at(memory(), {1, 1}, DType::f32);
    fill(at, z);
    const Tensor y = on_host(skip_gate(tape, Var(skip_of), Var(skip_of), skip, Var(at)).value());
    EXPECT_EQ(y.data<float>()[0], z < 0 ? 0 : 1e4f);
  }
}

TEST_P(Gates, HaveTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16}) {
    expect_same_bits_on_any_number_of_threads(backend(), skip_gate_case({700, 96}), type);
    expect_same_bits_on_any_number_of_threads(backend(), activation_case({700, 96}, Activation::gelu), type);
  }
}

}  // namespace
}  // namespace bireme::test
