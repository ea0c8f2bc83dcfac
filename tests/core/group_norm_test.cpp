#include <gtest/gtest.h>

#include "core/ops/norm/norm.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

OpCase group_norm_case(const Shape& shape, std::int64_t groups, float offset, double mean = 0) {
  return {.inputs = {{random_normal(shape, {.mean = mean, .seed = 7})}},
          .parameters = {random_normal({shape.back()}, {.mean = 1, .seed = 8})},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType type) -> std::vector<Var> {
            return {group_norm(tape, x[0], groups, p[0], offset, 1e-6f, type)};
          }};
}

class GroupNorm : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, GroupNorm, on_every_device(), device_name);

TEST_P(GroupNorm, GradientsMatchCentralDifferencesAndTypesAgree) {
  for (const auto& [shape, groups] :
       {std::pair{Shape{3, 14}, 2}, {Shape{5, 64}, 4}, {Shape{2, 51}, 3}, {Shape{4, 33}, 1}})
    for (const float offset : {0.0f, 1.0f}) {
      SCOPED_TRACE(to_string(shape));
      expect_gradients(backend(), group_norm_case(shape, groups, offset, 100));
      expect_agrees_with_double(backend(), group_norm_case(shape, groups, offset), DType::f32, 1e-5);
      expect_agrees_with_double(backend(), group_norm_case(shape, groups, offset), DType::bf16, 0.02);
    }
}

TEST_P(GroupNorm, WithOneGroupIsALayerNormAndEachGroupIsNormedAlone) {
  const Tensor x = here(random_normal({2, 24})), zero = random_normal({24}, {.deviation = 0}),
               gain = random_normal({24}, {.mean = 1});
  ParameterSet p;
  Parameter& g = p.add({.name = "g", .shape = {24}});
  Parameter& part = p.add({.name = "part", .shape = {8}});
  Parameter& b = p.add({.name = "b", .shape = {24}});
  p.build(memory(), {.master = DType::f64});
  copy(gain, g.value());
  copy(zero, b.value());
  Tape tape(backend(), Tape::Mode::inference);
  const Tensor whole = group_norm(tape, Var(x), 1, g, 0, 1e-5f, DType::f64).value();
  expect_close(whole, layer_norm(tape, Var(x), g, b, 1e-5f, DType::f64).value(), 1e-14);
  const Tensor grouped = group_norm(tape, Var(x), 3, g, 0, 1e-5f, DType::f64).value();
  copy(gain.slice(8, 16), part.value());
  const Tensor middle = x.reshape({6, 8}).slice(1, 2);
  expect_close(group_norm(tape, Var(middle), 1, part, 0, 1e-5f, DType::f64).value(),
               grouped.reshape({6, 8}).slice(1, 2), 1e-14);
}

TEST_P(GroupNorm, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    expect_same_bits_on_any_number_of_threads(backend(), group_norm_case({700, 96}, 4, 1), type);
}

TEST_P(GroupNorm, RefusesGroupsThatDoNotDivideTheChannels) {
  const std::string message = error_of(ErrorKind::usage, [&] {
    run_op(backend(), group_norm_case({3, 10}, 4, 0), DType::f32);
  });
  EXPECT_NE(message.find("10 channels do not divide by 4 groups"), std::string::npos) << message;
}

}  // namespace
}  // namespace bireme::test
