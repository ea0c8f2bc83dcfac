#include "models/attention_maps.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <span>

#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"

namespace bireme::test {
namespace {

/// Two masks of one map agree but for which of several equal patches at the border is kept: the reference
/// sorts without an order among equals.
void expect_same_up_to_ties(std::span<const float> map, std::span<const std::uint8_t> mask,
                            std::span<const std::uint8_t> expected) {
  float border = 1;
  int kept = 0;
  for (std::size_t i = 0; i < map.size(); ++i) {
    if (expected[i] != 0) border = std::min(border, map[i]);
    kept += mask[i] - expected[i];
  }
  EXPECT_EQ(kept, 0) << "as many patches";
  for (std::size_t i = 0; i < map.size(); ++i) {
    if (map[i] == border) continue;
    EXPECT_EQ(mask[i], expected[i]) << "patch " << i << " of attention " << map[i];
  }
}

TEST(AttentionMaps, MasksMatchGolden) {
  const Golden golden("vision/attention_mask.h5");
  const Tensor maps = golden.tensor("inputs/attention");
  for (const char* share : {"0.5", "0.6", "0.9"}) {
    SCOPED_TRACE(share);
    const Tensor masks = attention_masks(golden.memory(), maps, std::stod(share));
    const Tensor expected = golden.tensor(std::string("outputs/mask_") + share);
    for (std::size_t head = 0; head < 3; ++head)
      expect_same_up_to_ties(maps.values<float>().subspan(48 * head, 48),
                             masks.values<std::uint8_t>().subspan(48 * head, 48),
                             expected.values<std::uint8_t>().subspan(48 * head, 48));
    const Tensor pixels = repeat_patches(golden.memory(), expected.reshape({3, 48}), 6, 8, 4);
    expect_identical(pixels, golden.tensor(std::string("outputs/pixels_") + share), "pixels");
  }
}

TEST(AttentionMaps, KeepTheFewestPatchesThatHoldTheShare) {
  const auto memory = make_host_memory();
  const Tensor map(*memory, {1, 4}, DType::f32);
  const std::vector<float> values = {1, 4, 2, 1};
  std::copy(values.begin(), values.end(), map.data<float>());
  const auto kept = [&](double share) {
    const auto mask = attention_masks(*memory, map, share);
    return std::vector<int>(mask.values<std::uint8_t>().begin(), mask.values<std::uint8_t>().end());
  };
  EXPECT_EQ(kept(0.5), (std::vector{0, 1, 0, 0}));
  EXPECT_EQ(kept(0.6), (std::vector{0, 1, 1, 0}));
  EXPECT_EQ(kept(1), (std::vector{1, 1, 1, 1}));
  for (const double share : {0.0, -1.0, 1.5}) {
    const std::string message = error_of(ErrorKind::usage, [&] { attention_masks(*memory, map, share); });
    EXPECT_TRUE(mentions(message, {"choose a share above 0"}));
  }
}

TEST(AttentionMaps, TakeTheClassTokensRowWithoutItself) {
  const auto memory = make_host_memory();
  const Tensor attention(*memory, {2, 1, 3, 3}, DType::f32);
  for (std::int64_t i = 0; i < 18; ++i) attention.data<float>()[i] = static_cast<float>(i);
  const Tensor maps = class_attention(*memory, attention);
  ASSERT_EQ(maps.shape(), (Shape{2, 1, 2}));
  EXPECT_EQ(std::vector<float>(maps.values<float>().begin(), maps.values<float>().end()),
            (std::vector<float>{1, 2, 10, 11}));
}

}  // namespace
}  // namespace bireme::test
