#include "core/ops/attention/attention.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

struct Layout {
  Segments segments;
  int heads;
  std::int64_t dimension;
};
// One token; heads narrower than a vector; two lengths in one buffer; more queries than are taken at a time,
// in heads that cuDNN has (multiples of 8) and has not.
const std::vector<Layout> kLayouts = {
    {{{1, 1}}, 1, 1}, {{{2, 5}}, 2, 3}, {{{2, 17}, {3, 5}}, 3, 16}, {{{1, 130}}, 2, 24}, {{{1, 130}}, 1, 20}};

OpCase attention_case(const Layout& layout) {
  return {.inputs = {{random_normal({rows_of(layout.segments), 3 * layout.heads * layout.dimension},
                                    {.seed = 5})}},
          .parameters = {},
          .run = [layout](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
            return {attention(tape, x[0], layout.heads, layout.segments)};
          }};
}

class Attention : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, Attention, on_every_device(), device_name);

TEST_P(Attention, GradientsMatchCentralDifferences) {
  for (const Layout& layout : {kLayouts[0], kLayouts[1], kLayouts[2]})
    expect_gradients(backend(), attention_case(layout));
}

TEST_P(Attention, AgreesWithDouble) {
  for (const Layout& layout : kLayouts) {
    expect_agrees_with_double(backend(), attention_case(layout), DType::f32,
                              5e-6);  // sums of 130 and exponentials
    expect_agrees_with_double(backend(), attention_case(layout), DType::bf16,
                              0.02);  // inputs and outputs rounded to 2⁻⁹
  }
}

TEST_P(Attention, AddsToAGradientThatIsThere) {
  OpCase twice = attention_case(kLayouts[2]);
  twice.run = [once = twice.run](Tape& tape, const std::vector<Var>& x, ParameterSet& parameters,
                                 DType type) {
    return std::vector<Var>{once(tape, x, parameters, type)[0], once(tape, x, parameters, type)[0]};
  };
  expect_agrees_with_double(backend(), twice, DType::f32, 5e-6);
  expect_agrees_with_double(backend(), twice, DType::bf16, 0.02);
}

TEST_P(Attention, GivesTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    expect_same_bits_on_any_number_of_threads(backend(), attention_case(kLayouts[2]), type);
}

TEST_P(Attention, StaysFiniteForScoresThatOverflowAnExponential) {
  const Tensor qkv = convert(memory(), random_normal({6, 3 * 8}, {.deviation = 1000, .seed = 5}), DType::f32);
  Tape tape(backend(), Tape::Mode::inference);
  const Tensor y = on_host(attention(tape, Var(qkv), 1, {{1, 6}}).value());
  for (const float x : y.values<float>()) EXPECT_TRUE(std::isfinite(x));
}

TEST_P(Attention, WeightsAreTheSoftmaxThatWeighsTheValues) {
  const int heads = 2;
  const std::int64_t length = 7, dimension = 3;
  const Tensor qkv =
      convert(host(), random_normal({2 * length, 3 * heads * dimension}, {.seed = 9}), DType::f32);
  const Tensor weights = on_host(attention_weights(backend(), here(qkv), heads, {2, length}));
  Tape tape(backend(), Tape::Mode::inference);
  const Tensor y = attention(tape, Var(here(qkv)), heads, {{2, length}}).value();
  Tensor again(host(), y.shape(), DType::f32);
  for (std::int64_t s = 0; s < 2; ++s)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < length; ++i) {
        const float* row = weights.data<float>() + ((s * heads + h) * length + i) * length;
        double total = 0;
        for (std::int64_t j = 0; j < length; ++j) total += row[j];
        EXPECT_NEAR(total, 1, 1e-6);
        for (std::int64_t c = 0; c < dimension; ++c) {
          double sum = 0;
          for (std::int64_t j = 0; j < length; ++j)
            sum += double{row[j]} * qkv.data<float>()[(s * length + j) * 3 * heads * dimension +
                                                      2 * heads * dimension + h * dimension + c];
          again.data<float>()[(s * length + i) * heads * dimension + h * dimension + c] =
              static_cast<float>(sum);
        }
      }
  expect_close(y, again, 1e-6);
}

}  // namespace
}  // namespace bireme::test
