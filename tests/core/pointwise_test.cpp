#include "core/ops/pointwise/pointwise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/ops/pointwise/pointwise_kernels.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

const std::vector<Shape> kPointwiseShapes = {{1, 1}, {3, 7}, {5, 16}, {17, 64}, {2, 3, 129}};
constexpr double kPointwiseTolerance = 1e-6;      // a handful of roundings
constexpr double kPointwiseBf16Tolerance = 0.01;  // two roundings of 2⁻⁹

OpCase residual_case(const Shape& shape, bool scaled) {
  return {.inputs = {{random_normal(shape, {.seed = 7}), true}, {random_normal(shape, {.seed = 8})}},
          .parameters = {},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
            Tensor scale;
            if (scaled) {
              scale = convert(tape.backend().memory(), random_normal({x[0].value().rows()}), x[0].dtype());
            }
            return {residual_add(tape, x[0], x[1], scale)};
          }};
}

OpCase bias_case(const Shape& shape) {
  return {.inputs = {{random_normal(shape, {.seed = 7})}},
          .parameters = {random_normal({shape.back()}, {.seed = 8})},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            return {add_bias(tape, x[0], p[0])};
          }};
}

OpCase sigmoid_gate_case(const Shape& shape) {
  return {
      .inputs = {{random_normal(shape, {.deviation = 3, .seed = 7})}, {random_normal(shape, {.seed = 8})}},
      .parameters = {},
      .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
        return {sigmoid_gate(tape, x[0], x[1])};
      }};
}

OpCase gelu_case(const Shape& shape) {
  return {.inputs = {{random_normal(shape, {.deviation = 2, .seed = 7})}},
          .parameters = {},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
            return {gelu(tape, x[0])};
          }};
}

class Pointwise : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, Pointwise, on_every_device(), device_name);

TEST_P(Pointwise, GradientsMatchCentralDifferences) {
  for (const Shape& shape : kPointwiseShapes) {
    SCOPED_TRACE(to_string(shape));
    expect_gradients(backend(), residual_case(shape, false));
    expect_gradients(backend(), residual_case(shape, true));
    expect_gradients(backend(), bias_case(shape));
    expect_gradients(backend(), gelu_case(shape));
    expect_gradients(backend(), sigmoid_gate_case(shape));
  }
}

TEST_P(Pointwise, Fp32AndBf16AgreeWithFp64) {
  for (const Shape& shape : kPointwiseShapes) {
    SCOPED_TRACE(to_string(shape));
    for (const auto& [type, tolerance] :
         {std::pair{DType::f32, kPointwiseTolerance}, std::pair{DType::bf16, kPointwiseBf16Tolerance}}) {
      expect_agrees_with_double(backend(), residual_case(shape, true), type, tolerance);
      expect_agrees_with_double(backend(), bias_case(shape), type, tolerance);
      expect_agrees_with_double(backend(), gelu_case(shape), type, tolerance);
      expect_agrees_with_double(backend(), sigmoid_gate_case(shape), type, tolerance);
    }
  }
}

TEST_P(Pointwise, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16}) {
    expect_same_bits_on_any_number_of_threads(backend(), residual_case({700, 96}, true), type);
    expect_same_bits_on_any_number_of_threads(backend(), bias_case({700, 96}), type);
    expect_same_bits_on_any_number_of_threads(backend(), gelu_case({700, 96}), type);
    expect_same_bits_on_any_number_of_threads(backend(), sigmoid_gate_case({700, 96}), type);
  }
}

TEST_P(Pointwise, GeluAndItsDerivativeAreExactOverTheWholeRange) {
  // -12 … 12 in steps of 1/512, and what lies beyond. fp32: the approximation of Φ and φ is good to 1.2e-7,
  // times |x| in x·φ ≤ 0.25.
  std::vector<double> points;
  for (double x = -12; x <= 12; x += 1.0 / 512) points.push_back(x);
  for (const double x : {-1e30, -40.0, -13.5, 13.5, 40.0, 1e30, 0.0, 1e-30}) points.push_back(x);
  const auto count = static_cast<std::int64_t>(points.size());
  for (const auto& [type, tolerance] : {std::pair{DType::f32, 3e-7}, std::pair{DType::f64, 1e-14}}) {
    const Tensor x(memory(), {count}, type), y(memory(), {count}, type), dx(memory(), {count}, type),
        dy(memory(), {count}, type);
    const Tensor values(host(), {count}, DType::f64);
    std::copy(points.begin(), points.end(), values.data<double>());
    copy(values, x);
    fill(dy, 1);
    backend().pointwise().gelu(GeluForward{.x = x, .y = y});
    backend().pointwise().gelu(GeluBackward{.dy = dy, .x = x, .dx = {dx, false}});
    const Tensor actual = convert(host(), y, DType::f64), slope = convert(host(), dx, DType::f64);
    for (std::int64_t i = 0; i < count; ++i) {
      const double at = points[static_cast<std::size_t>(i)];
      const double phi = 0.5 * std::erfc(-at / std::sqrt(2.0)),
                   density = std::exp(-at * at / 2) / std::sqrt(2 * M_PI);
      const double scale = std::max(1.0, std::abs(at));  // absolute near 0, relative for large results
      ASSERT_NEAR(actual.data<double>()[i] / scale, at * phi / scale, tolerance) << "gelu at " << at;
      ASSERT_NEAR(slope.data<double>()[i], phi + (std::abs(at) > 100 ? 0 : at * density), 2 * tolerance)
          << "slope at " << at;
    }
  }
}

TEST_P(Pointwise, NotANumberStaysOne) {
  const Tensor x(memory(), {40}, DType::f32), y(memory(), {40}, DType::f32), b(memory(), {40}, DType::bf16);
  fill(x, NAN);
  backend().pointwise().gelu(GeluForward{.x = x, .y = y});
  backend().pointwise().add({.from = x, .to = b, .accumulate = false});
  const Tensor ys = on_host(y), bs = on_host(b);
  for (const float v : ys.values<float>()) EXPECT_TRUE(std::isnan(v));
  for (const bf16 v : bs.values<bf16>()) EXPECT_TRUE(std::isnan(to_float(v)));
}

TEST_P(Pointwise, Bf16IsRoundedToNearestEvenLikeToBf16) {
  // Every pattern of the upper half, with lower halves at, just below and just above the middle.
  std::vector<float> values;
  for (std::uint32_t upper = 0; upper < 0x10000; upper += 7)
    for (const std::uint32_t lower : {0x0000U, 0x7fffU, 0x8000U, 0x8001U}) {
      const std::uint32_t bits = upper << 16 | lower;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      values.push_back(value);
    }
  const auto count = static_cast<std::int64_t>(values.size());
  const Tensor from(host(), {count}, DType::f32), to(memory(), {count}, DType::bf16);
  std::copy(values.begin(), values.end(), from.data<float>());
  backend().pointwise().add({.from = here(from), .to = to, .accumulate = false});
  const Tensor found = on_host(to);
  for (std::int64_t i = 0; i < count; ++i)
    ASSERT_EQ(found.data<bf16>()[i].bits, to_bf16(from.data<float>()[i]).bits) << from.data<float>()[i];
}

TEST_P(Pointwise, AddAddsAcrossTypes) {
  const Tensor from = convert(host(), random_normal({101}), DType::bf16);
  const Tensor before = convert(host(), random_normal({101}, {.seed = 2}), DType::f32),
               sum = clone(memory(), before);
  backend().pointwise().add({.from = here(from), .to = sum});
  const Tensor to = on_host(sum);
  for (std::int64_t i = 0; i < 101; ++i)
    ASSERT_EQ(to.data<float>()[i], before.data<float>()[i] + to_float(from.data<bf16>()[i]));
}

TEST_P(Pointwise, NamesBothShapesWhenTheBranchHasAnother) {
  OpCase wrong = residual_case({3, 8}, false);
  wrong.inputs[1].value = random_normal({3, 9});
  const std::string message = error_of(ErrorKind::data, [&] { run_op(backend(), wrong, DType::f32); });
  EXPECT_NE(message.find("residual_add: branch has shape [3, 9], expected [3, 8]"), std::string::npos)
      << message;
}

}  // namespace
}  // namespace bireme::test
