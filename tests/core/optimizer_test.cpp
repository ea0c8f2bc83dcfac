#include <gtest/gtest.h>

#include <cmath>

#include "core/ops/update/update_kernels.h"
#include "core/optimizer/adamw.h"
#include "core/optimizer/clip.h"
#include "core/optimizer/schedule.h"
#include "core/tensor/random.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/golden.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

TEST(Schedules, MatchGolden) {
  Golden golden("vision/schedules.h5");
  for (const std::string name : {"lr", "lr_no_warmup", "lr_one_step_warmup"}) {
    const std::string path = "outputs/" + name;
    const auto n = static_cast<std::int64_t>(golden.number(path, "per_epoch"));
    const Tensor expected = golden.tensor(path);
    const LearningRateSchedule schedule{
        .base = golden.number(path, "base"),
        .minimum = golden.number(path, "final"),
        .warmup = n * static_cast<std::int64_t>(golden.number(path, "warmup_epochs")),
        .total = expected.elements()};
    for (std::int64_t it = 0; it < expected.elements(); ++it)
      EXPECT_NEAR(schedule.at(it), expected.data<double>()[it], 1e-12) << name << " at " << it;
  }
  for (const std::string name : {"momentum", "weight_decay"}) {
    const std::string path = "outputs/" + name;
    const Tensor expected = golden.tensor(path);
    for (std::int64_t it = 0; it < expected.elements(); ++it)
      EXPECT_NEAR(
          cosine_between(golden.number(path, "base"), golden.number(path, "final"), it, expected.elements()),
          expected.data<double>()[it], 1e-12);
  }
  for (const std::string name : {"teacher_temp", "teacher_temp_constant"}) {
    const std::string path = "outputs/" + name;
    const Tensor expected = golden.tensor(path);
    for (std::int64_t epoch = 0; epoch < expected.elements(); ++epoch)
      EXPECT_NEAR(ramp(golden.number(path, "warmup_teacher_temp"), golden.number(path, "teacher_temp"), epoch,
                       static_cast<std::int64_t>(golden.number(path, "warmup_epochs"))),
                  expected.data<double>()[epoch], 1e-12);
  }
}

TEST(Schedules, ExponentialFollowsRwkvsTrainingCode) {
  const Golden golden("rwkv/train_neo.h5");
  const auto setting = [&](const char* name) { return golden.number("config", name); };
  const LearningRateSchedule schedule{.shape = LearningRateSchedule::Shape::exponential,
                                      .base = setting("lr_init"),
                                      .minimum = setting("lr_final"),
                                      .warmup = static_cast<std::int64_t>(setting("warmup_steps")),
                                      .total = static_cast<std::int64_t>(setting("decay_steps"))};
  const Tensor expected = golden.tensor("inputs/lr");
  for (std::int64_t it = 0; it < expected.elements(); ++it)
    EXPECT_NEAR(schedule.at(it), expected.data<double>()[it], 1e-15) << it;
  EXPECT_DOUBLE_EQ(schedule.at(100), schedule.minimum);
  LearningRateSchedule to_zero = schedule;
  to_zero.minimum = 0;
  EXPECT_DOUBLE_EQ(to_zero.at(2), 0.002 * (1 - 1.0 / 3));  // linear
}

class Optimizer : public DeviceTest {
 protected:
  Optimizer() {
    for (const std::int64_t size : {3, 20, 40000}) {
      parameters_.add({.name = "p" + std::to_string(size),
                       .shape = {size},
                       .initial = {Initializer::Law::normal, 1},
                       .decays = size != 3});
    }
    parameters_.build(memory(), {.bf16_copy = true});
    parameters_.initialize(1);
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      RandomStream random(2, i, RandomUse::test);
      const Tensor gradient(host(), parameters_[i].shape(), DType::f32);
      for (float& g : gradient.values<float>()) g = static_cast<float>(random.normal());
      copy(gradient, parameters_[i].gradient());
    }
  }
  static float entry(const Tensor& tensor, std::int64_t i) { return on_host(tensor).data<float>()[i]; }
  ParameterSet parameters_;
};
INSTANTIATE_TEST_SUITE_P(Devices, Optimizer, on_every_device(), device_name);

TEST_P(Optimizer, FollowsTheFormulaAndCountsStepsForEachParameter) {
  parameters_[1].set_trainable(false);
  AdamWOptimizer adamw(backend(), parameters_, {}, 0, parameters_.flat_values().elements());
  const double rate = 0.01, decay = 0.1;
  double theta[3], m[3] = {}, v[3] = {};
  for (int i = 0; i < 3; ++i) theta[i] = entry(parameters_[static_cast<std::size_t>(i)].value(), 2);
  int steps[3] = {};
  for (int step = 0; step < 4; ++step) {
    if (step == 2) parameters_[1].set_trainable(true);
    adamw.step(rate, decay, std::vector<float>{1, 0.5F, 0.25F});
    for (std::size_t i = 0; i < 3; ++i) {
      if (i == 1 && step < 2) continue;
      const double g = entry(parameters_[i].gradient(), 2) * std::pow(0.5, static_cast<double>(i));
      const int t = ++steps[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      theta[i] *= 1 - rate * (i == 0 ? 0 : decay);
      theta[i] -=
          rate * (m[i] / (1 - std::pow(0.9, t))) / (std::sqrt(v[i] / (1 - std::pow(0.999, t))) + 1e-8);
    }
  }
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_NEAR(entry(parameters_[i].value(), 2), theta[i], 2e-6) << i;  // four steps of fp32
  EXPECT_EQ(adamw.steps(), (std::vector<std::int64_t>{4, 2, 4}));
}

TEST_P(Optimizer, EachParameterHasItsShareOfTheLearningRate) {
  ParameterSet scaled;
  for (const double scale : {1.0, 3.0})
    scaled.add({.name = std::to_string(scale), .shape = {1}, .learning_rate_scale = scale});
  scaled.build(memory(), {});
  for (std::size_t i = 0; i < 2; ++i) fill(scaled[i].gradient(), 5);
  AdamWOptimizer adamw(backend(), scaled, {}, 0, scaled.flat_values().elements());
  adamw.step(0.01, 0, {});  // Adam's first step is the learning rate, to fp32
  EXPECT_NEAR(entry(scaled[0].value(), 0), -0.01, 1e-6);
  EXPECT_NEAR(entry(scaled[1].value(), 0), -0.03, 1e-6);
}

TEST_P(Optimizer, SharesOfTheBuffersMakeTheSameStep) {
  ParameterSet other;
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    other.add(
        {.name = parameters_[i].name(), .shape = parameters_[i].shape(), .decays = parameters_[i].decays()});
  other.build(memory(), {.bf16_copy = true});
  other.copy_from(parameters_);
  copy(parameters_.flat_gradients(), other.flat_gradients());
  const std::int64_t n = parameters_.flat_values().elements(), cut = n / 3;
  AdamWOptimizer whole(backend(), parameters_, {}, 0, n), first(backend(), other, {}, 0, cut),
      second(backend(), other, {}, cut, n);
  whole.step(0.1, 0.1, {});
  first.step(0.1, 0.1, {});
  second.step(0.1, 0.1, {});
  // To the bit: an element moves alike wherever in a vector a share puts it.
  expect_identical(other.flat_values(), parameters_.flat_values(), "values");
  expect_identical(other.flat_bf16(), parameters_.flat_bf16(), "bf16 copy");
}

TEST_P(Optimizer, RoundsWhatItMovesIntoTheCopy) {
  AdamWOptimizer adamw(backend(), parameters_, {}, 0, parameters_.flat_values().elements());
  adamw.step(0.1, 0.1, {});
  expect_identical(parameters_.flat_bf16(), convert(memory(), parameters_.flat_values(), DType::bf16));
}

TEST_P(Optimizer, AveragesWeights) {
  const std::int64_t n = parameters_.flat_values().elements();
  const Tensor average = convert(memory(), random_normal({n}), DType::f32), before = clone(memory(), average),
               rounded(memory(), {n}, DType::bf16);
  backend().update().average(
      {.values = parameters_.flat_values(), .average = average, .bf16_copy = rounded, .momentum = 0.75F});
  const Tensor found = on_host(average), old = on_host(before), values = on_host(parameters_.flat_values());
  for (std::int64_t i = 0; i < n; ++i)
    ASSERT_NEAR(found.data<float>()[i], 0.75 * old.data<float>()[i] + 0.25 * values.data<float>()[i], 1e-6);
  expect_identical(rounded, convert(memory(), average, DType::bf16));
}

TEST_P(Optimizer, ClipsEachTensorOrAllTogether) {
  double squares = 0;
  const Tensor gradient = on_host(parameters_[1].gradient());
  for (const float g : gradient.values<float>()) squares += double{g} * g;
  const ClippedGradients each =
      clip_gradients(backend(), parameters_, {.type = ClipType::parameter, .limit = 2});
  EXPECT_NEAR(each.norms[1], std::sqrt(squares), 1e-9 * std::sqrt(squares));
  EXPECT_FLOAT_EQ(each.scales[1], static_cast<float>(2 / (std::sqrt(squares) + 1e-6)));
  const ClippedGradients all = clip_gradients(backend(), parameters_, {.type = ClipType::global, .limit = 2});
  EXPECT_FLOAT_EQ(all.scales[0], static_cast<float>(2 / (all.norm + 1e-6)));
  EXPECT_EQ(all.scales[0], all.scales[2]);
  EXPECT_TRUE(all.finite);
}

TEST_P(Optimizer, NoticesGradientsThatAreNotFinite) {
  fill(parameters_[2].gradient().slice(39999, 40000), NAN);
  EXPECT_FALSE(clip_gradients(backend(), parameters_, {.type = ClipType::parameter}).finite);
}

}  // namespace
}  // namespace bireme::test
