#include "core/ops/convolution/convolution.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

/// Two sizes of pictures; neither side of the second is a multiple of the patch.
OpCase patches_case(int patch) {
  return {.inputs = {{random_normal({2, 3, 4, 8}, {.seed = 7}), true},
                     {random_normal({1, 3, 7, 5}, {.seed = 8}), true}},
          .parameters = {},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType type) -> std::vector<Var> {
            return {extract_patches(tape, x, patch, type)};
          }};
}

class Convolution : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, Convolution, on_every_device(), device_name);

TEST_P(Convolution, GradientsMatchCentralDifferences) {
  for (const int patch : {1, 2, 3, 4}) {
    SCOPED_TRACE(patch);
    expect_gradients(backend(), patches_case(patch));
    expect_agrees_with_double(backend(), patches_case(patch), DType::f32, 1e-7);    // copies
    expect_agrees_with_double(backend(), patches_case(patch), DType::bf16, 0.004);  // rounded once, by 2⁻⁹
  }
}

TEST_P(Convolution, PatchesHoldTheirPixelsByChannelRowAndColumn) {
  // One picture of 2 channels, 5 × 4, pixel value = 100 · channel + 10 · row + column; patches of 2: the last
  // row is left out.
  const Tensor picture(host(), {1, 2, 5, 4}, DType::f32);
  for (std::int64_t i = 0; i < 40; ++i) {
    const std::int64_t value = 100 * (i / 20) + 10 * (i % 20 / 4) + i % 4;
    picture.data<float>()[i] = static_cast<float>(value);
  }
  Tape tape(backend(), Tape::Mode::inference);
  const Tensor y = on_host(extract_patches(tape, {Var(here(picture))}, 2, DType::f32).value());
  EXPECT_EQ(y.shape(), (Shape{4, 8}));
  const float expected[] = {22, 23, 32, 33, 122, 123, 132, 133};  // patch (1, 1)
  for (std::int64_t i = 0; i < 8; ++i) EXPECT_EQ(y.data<float>()[3 * 8 + i], expected[i]) << i;
}

TEST_P(Convolution, HasTheSameBitsOnAnyNumberOfThreads) {
  OpCase large = patches_case(4);
  large.inputs[0].value = random_normal({8, 3, 32, 32});
  expect_same_bits_on_any_number_of_threads(backend(), large, DType::bf16);
}

TEST_P(Convolution, NamesPicturesSmallerThanAPatch) {
  const std::string message =
      error_of(ErrorKind::data, [&] { run_op(backend(), patches_case(6), DType::f32); });
  EXPECT_NE(message.find("pictures of shape [2, 3, 4, 8] hold no patch of 6 pixels"), std::string::npos)
      << message;
}

}  // namespace
}  // namespace bireme::test
