#include "core/ops/norm/norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/ops/pointwise/pointwise.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

// Short of, at and past a vector of every instruction set, and the sizes of vision transformers.
const std::vector<Shape> kNormShapes = {{1, 1}, {3, 7}, {5, 16}, {17, 64}, {2, 3, 129}, {4, 192}};
// fp32 against fp64: sums of up to 192 terms and one division, far below 1e-5 of the largest entry. bf16:
// every stored number is rounded by up to 2⁻⁹ of itself, and a gradient is made of a few of them.
constexpr double kNormTolerance = 1e-5, kNormBf16Tolerance = 0.02;

OpCase layer_norm_case(const Shape& shape, double mean = 0) {
  return {.inputs = {{random_normal(shape, {.mean = mean, .seed = 7})}},
          .parameters = {random_normal({shape.back()}, {.mean = 1, .seed = 8}),
                         random_normal({shape.back()}, {.seed = 9})},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType type) -> std::vector<Var> {
            return {layer_norm(tape, x[0], p[0], p[1], 1e-6f, type)};
          }};
}

/// Both results are used; `scaled` has one dropped row and others at 1.25.
OpCase residual_norm_case(const Shape& shape, bool scaled, bool uses_sum = true, bool uses_norm = true) {
  return {.inputs = {{random_normal(shape, {.seed = 7}), true}, {random_normal(shape, {.seed = 10})}},
          .parameters = {random_normal({shape.back()}, {.mean = 1, .seed = 8}),
                         random_normal({shape.back()}, {.seed = 9})},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType type) -> std::vector<Var> {
            Tensor scale;
            if (scaled) {
              scale = tape.empty({x[0].value().rows()}, x[0].dtype());
              fill(scale, 1.25);
              fill(scale.slice(0, 1), 0);
            }
            const ResidualNorm result = residual_layer_norm(tape, x[0], x[1], scale, p[0], p[1], 1e-6f, type);
            std::vector<Var> used;
            if (uses_sum) used.push_back(result.x);
            if (uses_norm) used.push_back(result.y);
            return used;
          }};
}

OpCase rms_norm_case(const Shape& shape) {
  return {.inputs = {{random_normal(shape, {.mean = 0.5, .seed = 7})}},
          .parameters = {random_normal({shape.back()}, {.mean = 1, .seed = 8})},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType type) -> std::vector<Var> {
            return {rms_norm(tape, x[0], p[0], 1e-5f, type)};
          }};
}

OpCase residual_rms_case(const Shape& shape, bool uses_sum, bool uses_norm, bool fused = true) {
  return {.inputs = {{random_normal(shape, {.seed = 7}), true}, {random_normal(shape, {.seed = 10})}},
          .parameters = {random_normal({shape.back()}, {.mean = 1, .seed = 8})},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType type) -> std::vector<Var> {
            std::vector<Var> used;
            if (fused) {
              const ResidualNorm result = residual_rms_norm(tape, x[0], x[1], p[0], 1e-5f, type);
              if (uses_sum) used.push_back(result.x);
              if (uses_norm) used.push_back(result.y);
            } else {
              const Var sum = residual_add(tape, x[0], x[1]);
              used = {sum, rms_norm(tape, sum, p[0], 1e-5f, type)};
            }
            return used;
          }};
}

OpCase l2_case(const Shape& shape) {
  return {.inputs = {{random_normal(shape, {.seed = 7})}},
          .parameters = {},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
            return {l2_normalize(tape, x[0])};
          }};
}

OpCase weight_norm_case(const Shape& shape) {
  return {.inputs = {},
          .parameters = {random_normal(shape, {.seed = 7}),
                         random_normal({shape.front(), 1}, {.mean = 1, .seed = 8})},
          .run = [](Tape& tape, const std::vector<Var>&, ParameterSet& p, DType type) -> std::vector<Var> {
            return {weight_norm(tape, p[0], p[1], type)};
          }};
}

BatchNormState fresh_state(Memory& memory, std::int64_t channels) {
  BatchNormState state{.running_mean = Tensor(memory, {channels}, DType::f32),
                       .running_variance = Tensor(memory, {channels}, DType::f32)};
  fill(state.running_mean, 0);
  fill(state.running_variance, 1);
  return state;
}

OpCase batch_norm_case(const Shape& shape, double mean = 0) {
  return {.inputs = {{random_normal(shape, {.mean = mean, .seed = 7})}},
          .parameters = {random_normal({shape.back()}, {.mean = 1, .seed = 8}),
                         random_normal({shape.back()}, {.seed = 9})},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            BatchNormState state = fresh_state(tape.backend().memory(), x[0].value().channels());
            return {batch_norm(tape, x[0], p[0], p[1], state, {})};
          }};
}

class Norm : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, Norm, on_every_device(), device_name);

TEST_P(Norm, LayerNormGradientsMatchCentralDifferences) {
  for (const Shape& shape : kNormShapes) {
    SCOPED_TRACE(to_string(shape));
    // One channel has no deviation: the norm is constant, and differences only see rounding divided by
    // √epsilon.
    if (shape.back() == 1) continue;
    expect_gradients(backend(), layer_norm_case(shape, 100));  // a large mean exposes cancellation
  }
}

TEST_P(Norm, LayerNormInFp32AndBf16AgreesWithFp64) {
  for (const Shape& shape : kNormShapes) {
    SCOPED_TRACE(to_string(shape));
    // A single channel is all cancellation: dx is 0 in exact arithmetic.
    if (shape.back() == 1) continue;
    expect_agrees_with_double(backend(), layer_norm_case(shape), DType::f32, kNormTolerance);
    expect_agrees_with_double(backend(), layer_norm_case(shape), DType::bf16, kNormBf16Tolerance);
  }
}

TEST_P(Norm, ManyRowsAndWideRowsAgreeWithFp64) {
  // More rows than warps on a GPU; rows whose sums do not fit into the shared memory of a block.
  for (const Shape& shape : {Shape{2300, 8}, Shape{2, 4200}}) {
    SCOPED_TRACE(to_string(shape));
    expect_agrees_with_double(backend(), residual_norm_case(shape, true), DType::f32, kNormTolerance);
    expect_agrees_with_double(backend(), rms_norm_case(shape), DType::f32, kNormTolerance);
  }
}

TEST_P(Norm, LayerNormIsExactAtALargeMean) {
  // Mean 1000, deviation 1: a one-pass variance in fp32 is wrong by tens of percent. 1000 itself is known to
  // 6e-5 here.
  expect_agrees_with_double(backend(), layer_norm_case({4, 192}, 1000), DType::f32, 1e-4);
}

TEST_P(Norm, LayerNormHasTheMeanAndDeviationOfItsParameters) {
  ParameterSet p;
  Parameter& gain = p.add({.name = "gain", .shape = {64}, .initial = {Initializer::Law::constant, 2}});
  Parameter& bias = p.add({.name = "bias", .shape = {64}, .initial = {Initializer::Law::constant, 3}});
  p.build(memory(), {.master = DType::f64});
  p.initialize(1);
  Tape tape(backend());
  const Tensor y =
      on_host(layer_norm(tape, Var(here(random_normal({1, 64}))), gain, bias, 0.0f, DType::f64).value());
  double mean = 0, squares = 0;
  for (const double v : y.values<double>()) mean += v / 64;
  for (const double v : y.values<double>()) squares += (v - mean) * (v - mean) / 64;
  EXPECT_NEAR(mean, 3, 1e-12);
  EXPECT_NEAR(squares, 4, 1e-12);
}

TEST_P(Norm, ResidualNormGradientsMatchCentralDifferences) {
  for (const Shape& shape : {Shape{3, 7}, Shape{4, 33}, Shape{1, 65}})
    for (const bool scaled : {false, true})
      for (const auto& [sum, norm] :
           {std::pair{true, true}, std::pair{true, false}, std::pair{false, true}}) {
        SCOPED_TRACE(to_string(shape) + (scaled ? " scaled" : "") + (sum ? " sum" : "") +
                     (norm ? " norm" : ""));
        expect_gradients(backend(), residual_norm_case(shape, scaled, sum, norm));
      }
}

TEST_P(Norm, ResidualNormInFp32AndBf16AgreesWithFp64) {
  for (const Shape& shape : {Shape{3, 7}, Shape{17, 64}, Shape{3, 129}, Shape{40, 192}}) {
    SCOPED_TRACE(to_string(shape));
    expect_agrees_with_double(backend(), residual_norm_case(shape, true), DType::f32, kNormTolerance);
    expect_agrees_with_double(backend(), residual_norm_case(shape, true), DType::bf16, kNormBf16Tolerance);
    expect_agrees_with_double(backend(), residual_norm_case(shape, false), DType::bf16, kNormBf16Tolerance);
  }
}

TEST_P(Norm, ResidualNormEqualsResidualAddThenLayerNorm) {
  for (const DType type : {DType::f64, DType::f32, DType::bf16})
    for (const bool scaled : {false, true}) {
      const OpCase fused = residual_norm_case({33, 100}, scaled);
      OpCase separate = fused;
      separate.run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p,
                         DType compute) -> std::vector<Var> {
        Tensor scale;
        if (scaled) {
          scale = tape.empty({33}, x[0].dtype());
          fill(scale, 1.25);
          fill(scale.slice(0, 1), 0);
        }
        const Var sum = residual_add(tape, x[0], x[1], scale);
        return {sum, layer_norm(tape, sum, p[0], p[1], 1e-6f, compute)};
      };
      const OpResult a = run_op(backend(), fused, type), b = run_op(backend(), separate, type);
      for (int i = 0; i < 2; ++i) {
        const auto n = static_cast<std::size_t>(i);
        expect_identical(a.outputs[n], b.outputs[n], "output");
        expect_identical(a.input_gradients[n], b.input_gradients[n], "input gradient");
        expect_identical(a.parameter_gradients[n], b.parameter_gradients[n], "parameter gradient");
      }
    }
}

TEST_P(Norm, ResidualNormLeavesAGradientThatOthersHoldUntouched) {
  // The seed of backward is held by this test while the op adds the norm's part to it.
  ParameterSet p;
  Parameter& gain = p.add({.name = "gain", .shape = {8}, .initial = {Initializer::Law::constant, 1}});
  Parameter& bias = p.add({.name = "bias", .shape = {8}});
  p.build(memory(), {});
  p.initialize(1);
  Tape tape(backend());
  const Var x = tape.leaf(convert(memory(), random_normal({4, 8}), DType::f32));
  const Var branch = tape.leaf(convert(memory(), random_normal({4, 8}, {.seed = 2}), DType::f32));
  const ResidualNorm result = residual_layer_norm(tape, x, branch, {}, gain, bias, 1e-6f, DType::f32);
  const Var y = residual_add(tape, result.x, result.y);
  const Tensor seed = convert(memory(), random_normal({4, 8}, {.seed = 3}), DType::f32),
               before = clone(memory(), seed);
  tape.backward(y, &p, {}, seed);
  expect_identical(seed, before, "seed");
}

TEST_P(Norm, RmsNormGradientsMatchCentralDifferences) {
  for (const Shape& shape : kNormShapes) {
    SCOPED_TRACE(to_string(shape));
    expect_gradients(backend(), rms_norm_case(shape));
    expect_agrees_with_double(backend(), rms_norm_case(shape), DType::f32,
                              shape.back() == 1 ? 1 : kNormTolerance);
    if (shape.back() > 1)
      expect_agrees_with_double(backend(), rms_norm_case(shape), DType::bf16, kNormBf16Tolerance);
  }
}

TEST_P(Norm, RmsNormMatchesTheReference) {
  const Golden golden("llama/operators.h5");
  const Tensor x = golden.tensor("rms_norm/inputs/x");
  for (const DType type : {DType::f64, DType::f32}) {
    ParameterSet p;
    Parameter& gain = p.add({.name = "gain", .shape = {x.channels()}});
    p.build(memory(), {.master = type});
    copy(golden.tensor("rms_norm/inputs/weight"), gain.value());
    p.begin_gradients();
    Tape tape(backend());
    const Var leaf = tape.leaf(convert(memory(), x, type));
    const Var y =
        rms_norm(tape, leaf, gain, static_cast<float>(golden.number("config", "rms_norm_eps")), type);
    tape.backward(y, &p, {}, convert(memory(), golden.tensor("rms_norm/inputs/cotangent"), type));
    const double t = type == DType::f64 ? 1e-10 : 1e-5;
    expect_close(y.value(), golden.tensor("rms_norm/outputs/y"), t, 0, "y");
    expect_close(tape.gradient(leaf), golden.tensor("rms_norm/grads/x"), t, 0, "gradient of x");
    expect_close(gain.gradient(), golden.tensor("rms_norm/grads/weight"), t, 0, "gradient of the gain");
  }
}

TEST_P(Norm, RmsNormInBf16RoundsBeforeTheGain) {
  // x · r = 1.00390625 lies half-way between two bf16 numbers and rounds to 1; times 1.0078125 that stays
  // exact. Rounding once, after the gain, would give 1.015625.
  ParameterSet p;
  Parameter& gain = p.add({.name = "gain", .shape = {2}});
  p.build(memory(), {});
  fill(gain.value(), 1.0078125);
  const Tensor x(host(), {1, 2}, DType::f32);
  x.data<float>()[0] = 1.00390625f, x.data<float>()[1] = std::sqrt(2 - 1.00390625f * 1.00390625f);
  Tape tape(backend());
  const Var y = rms_norm(tape, Var(here(x)), gain, 0, DType::bf16);
  EXPECT_EQ(to_float(on_host(y.value()).data<bf16>()[0]), 1.0078125f);
}

TEST_P(Norm, ResidualRmsNormGradientsMatchCentralDifferences) {
  for (const Shape& shape : {Shape{3, 7}, Shape{4, 33}, Shape{1, 65}})
    for (const auto& [sum, norm] : {std::pair{true, true}, std::pair{true, false}, std::pair{false, true}}) {
      SCOPED_TRACE(to_string(shape) + (sum ? " sum" : "") + (norm ? " norm" : ""));
      expect_gradients(backend(), residual_rms_case(shape, sum, norm));
    }
}

TEST_P(Norm, ResidualRmsNormEqualsResidualAddThenRmsNorm) {
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    const OpResult a = run_op(backend(), residual_rms_case({33, 100}, true, true), type),
                   b = run_op(backend(), residual_rms_case({33, 100}, true, true, false), type);
    for (std::size_t n = 0; n < 2; ++n) expect_identical(a.outputs[n], b.outputs[n], "output");
    // The norm's part and the direct one are added with one rounding here, and two there.
    const double t = type == DType::f64 ? 1e-15 : 1e-6;
    expect_close(a.input_gradients[0], b.input_gradients[0], t, 0, "gradient of the stream");
    expect_close(a.input_gradients[1], b.input_gradients[1], type == DType::bf16 ? 0x1p-8 : t, 0,
                 "gradient of the branch");
    expect_identical(a.parameter_gradients[0], b.parameter_gradients[0], "gradient of the gain");
  }
}

TEST_P(Norm, L2NormalizeGradientsMatchCentralDifferences) {
  for (const Shape& shape : kNormShapes) {
    SCOPED_TRACE(to_string(shape));
    expect_gradients(backend(), l2_case(shape));
    expect_agrees_with_double(backend(), l2_case(shape), DType::f32, shape.back() == 1 ? 1 : kNormTolerance);
    if (shape.back() > 1)
      expect_agrees_with_double(backend(), l2_case(shape), DType::bf16, kNormBf16Tolerance);
  }
}

TEST_P(Norm, L2NormalizeOfAZeroRowIsZeroAndItsGradientFinite) {
  for (const DType type : {DType::f32, DType::f64}) {
    Tape tape(backend());
    const Tensor zeros(memory(), {1, 9}, type), ones(memory(), {1, 9}, type);
    fill(zeros, 0);
    fill(ones, 1);
    const Var x = tape.leaf(zeros), u = l2_normalize(tape, x);
    expect_identical(u.value(), zeros);
    tape.backward(u, nullptr, {}, ones);
    const Tensor expected(memory(), {1, 9}, type);
    fill(expected, 1e12);  // du / floor
    expect_close(tape.gradient(x), expected, 1e-6);
  }
}

TEST_P(Norm, WeightNormGradientsMatchCentralDifferences) {
  for (const Shape& shape : {Shape{1, 3}, Shape{3, 7}, Shape{40, 12}, Shape{5, 129}}) {
    SCOPED_TRACE(to_string(shape));
    expect_gradients(backend(), weight_norm_case(shape));
    expect_agrees_with_double(backend(), weight_norm_case(shape), DType::f32, kNormTolerance);
    expect_agrees_with_double(backend(), weight_norm_case(shape), DType::bf16, kNormBf16Tolerance);
  }
}

TEST_P(Norm, AFixedMagnitudeGetsNoGradientAndTheDirectionStillDoes) {
  ParameterSet p;
  Parameter& v = p.add({.name = "v", .shape = {4, 6}, .initial = {Initializer::Law::normal, 1}});
  Parameter& g = p.add({.name = "g", .shape = {4, 1}, .initial = {Initializer::Law::constant, 1}});
  p.build(memory(), {});
  p.initialize(1);
  g.set_trainable(false);
  fill(g.gradient(), 77);
  Tape tape(backend());
  const Var w = weight_norm(tape, v, g, DType::f32);
  tape.backward(w, nullptr, {}, convert(memory(), random_normal({4, 6}), DType::f32));
  const Tensor fixed = on_host(g.gradient()), moving = on_host(v.gradient());
  for (const float x : fixed.values<float>()) EXPECT_EQ(x, 77);
  for (const float x : moving.values<float>()) EXPECT_NE(x, 0);
}

TEST_P(Norm, BatchNormGradientsMatchCentralDifferences) {
  for (const Shape& shape : {Shape{2, 3}, Shape{8, 48}, Shape{37, 17}}) {
    SCOPED_TRACE(to_string(shape));
    expect_gradients(backend(), batch_norm_case(shape));
    expect_agrees_with_double(backend(), batch_norm_case({8, 48}, 10), DType::f32, 1e-4);
    expect_agrees_with_double(backend(), batch_norm_case({37, 17}), DType::bf16, 0.03);
  }
}

TEST_P(Norm, BatchNormMovesTheRunningStatisticsTowardsMeanAndUnbiasedVariance) {
  ParameterSet p;
  Parameter& gain = p.add({.name = "gain", .shape = {1}, .initial = {Initializer::Law::constant, 1}});
  Parameter& bias = p.add({.name = "bias", .shape = {1}});
  p.build(memory(), {});
  p.initialize(1);
  const Tensor x(host(), {3, 1}, DType::f32);
  x.data<float>()[0] = 1, x.data<float>()[1] = 2, x.data<float>()[2] = 6;  // mean 3, unbiased variance 7
  BatchNormState state = fresh_state(memory(), 1);
  Tape tape(backend());
  batch_norm(tape, Var(here(x)), gain, bias, state, {});
  EXPECT_FLOAT_EQ(on_host(state.running_mean).data<float>()[0], 0.1f * 3);
  EXPECT_FLOAT_EQ(on_host(state.running_variance).data<float>()[0], 0.9f + 0.1f * 7);
}

TEST_P(Norm, EveryNormHasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16}) {
    expect_same_bits_on_any_number_of_threads(backend(), layer_norm_case({700, 96}), type);
    expect_same_bits_on_any_number_of_threads(backend(), residual_norm_case({700, 96}, true), type);
    expect_same_bits_on_any_number_of_threads(backend(), rms_norm_case({700, 96}), type);
    expect_same_bits_on_any_number_of_threads(backend(), residual_rms_case({700, 96}, true, true), type);
    expect_same_bits_on_any_number_of_threads(backend(), l2_case({700, 96}), type);
    expect_same_bits_on_any_number_of_threads(backend(), weight_norm_case({700, 96}), type);
    expect_same_bits_on_any_number_of_threads(backend(), batch_norm_case({700, 96}), type);
  }
}

TEST_P(Norm, NamesBothShapesWhenAParameterHasTheWrongSize) {
  OpCase wrong = layer_norm_case({3, 8});
  wrong.parameters[0] = random_normal({7});
  const std::string message = error_of(ErrorKind::data, [&] { run_op(backend(), wrong, DType::f32); });
  EXPECT_NE(message.find("layer_norm: gain has shape [7], expected [8]"), std::string::npos) << message;
}

}  // namespace
}  // namespace bireme::test
