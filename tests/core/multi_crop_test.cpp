#include "core/image/multi_crop.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/support/expect_error.h"

namespace bireme {
namespace {

Picture textured(int width, int height, int channels) {
  Picture picture{width, height, channels, {}};
  RandomStream random(1, 0, RandomUse::test);
  for (int i = 0; i < width * height * channels; ++i)
    picture.pixels.push_back(static_cast<std::uint8_t>(random.below(256)));
  return picture;
}

MultiCropOptions small(int channels) {
  MultiCropOptions options;
  options.global_size = 28;
  options.local_size = 14;
  options.local_crops = 4;
  options.mean.assign(channels, 0.25f);
  options.std.assign(channels, 0.5f);
  return options;
}

std::vector<std::vector<float>> crops_of(MultiCrop& crops, const MultiCropOptions& options,
                                         const Picture& picture, const PictureKey& key) {
  std::vector<std::vector<float>> values;
  std::vector<float*> outputs;
  for (int crop = 0; crop < options.crops(); ++crop) {
    const int side = options.side(crop);
    values.emplace_back(static_cast<std::size_t>(picture.channels) * side * side, NAN);
  }
  for (auto& crop : values) outputs.push_back(crop.data());
  crops(picture, key, outputs);
  return values;
}

TEST(MultiCrop, IsAFunctionOfSeedRecordAndEpochAlone) {
  const MultiCropOptions options = small(3);
  const Picture picture = textured(32, 30, 3);
  MultiCrop crops(options), others(options);
  const auto first = crops_of(crops, options, picture, {.seed = 7, .record = 3, .epoch = 2});
  crops_of(crops, options, textured(50, 40, 3),
           {.seed = 7, .record = 4, .epoch = 2});  // leaves other scratch behind
  EXPECT_EQ(first, crops_of(crops, options, picture, {.seed = 7, .record = 3, .epoch = 2}));
  EXPECT_EQ(first, crops_of(others, options, picture, {.seed = 7, .record = 3, .epoch = 2}));
  for (const PictureKey& key : {PictureKey{8, 3, 2}, PictureKey{7, 4, 2}, PictureKey{7, 3, 1}}) {
    const auto other = crops_of(crops, options, picture, key);
    for (int crop = 0; crop < options.crops(); ++crop) EXPECT_NE(first[crop], other[crop]) << crop;
  }
  for (int crop = 3; crop < options.crops(); ++crop)
    EXPECT_NE(first[2], first[crop]);  // crops of one size differ
}

// With every change switched off and the whole picture as the only possible crop, what is left is
// normalisation.
TEST(MultiCrop, WithoutChangesIsTheNormalizedPictureInPlanes) {
  for (const int channels : {1, 3, 4}) {
    MultiCropOptions options = small(channels);
    options.local_crops = 0;
    options.global_scale = {1, 1};
    options.flip = options.jitter = options.greyscale = options.solarize = 0;
    options.blur_first_global = options.blur_other_globals = 0;
    const Picture picture = textured(28, 28, channels);
    MultiCrop crops(options);
    // Of the aspect ratios only 1 ± ½/28 give a rectangle that fits; ten failures give the whole picture as
    // well.
    const auto values = crops_of(crops, options, picture, {1, 2, 3});
    for (int c = 0; c < channels; ++c)
      for (int i = 0; i < 28 * 28; ++i)
        ASSERT_EQ(values[0][c * 784 + i],
                  (static_cast<float>(picture.pixels[i * channels + c]) / 255.0f - 0.25f) / 0.5f);
  }
}

struct Tally {
  int flips = 0, jitters = 0, greys = 0, blurs = 0, solarized = 0;
  double area = 0;
};

// Shares over 4,000 records. The deviation of a share is at most ½/√4000 = 0.008: 0.04 is five of them.
TEST(MultiCrop, PlansFollowTheProbabilitiesOfEachCrop) {
  constexpr int kRecords = 4000;
  constexpr double kTolerance = 0.04;
  const MultiCropOptions options = small(3);
  const Size picture{.height = 300, .width = 400};
  const double blur[] = {1.0, 0.1, 0.5}, solarize[] = {0, 0.2, 0};
  const AreaRange area[] = {options.global_scale, options.global_scale, options.local_scale};
  for (int crop = 0; crop < 3; ++crop) {
    SCOPED_TRACE(crop);
    Tally tally;
    std::set<std::array<int, 4>> orders;
    for (std::uint64_t record = 0; record < kRecords; ++record) {
      const CropPlan plan = plan_crop(options, picture, {1, record, 0}, crop);
      const Rectangle& r = plan.rectangle;
      ASSERT_TRUE(r.top >= 0 && r.left >= 0 && r.height > 0 && r.width > 0 &&
                  r.top + r.height <= picture.height && r.left + r.width <= picture.width);
      const double share = double(r.height) * r.width / (300 * 400);
      // Each side is rounded by at most half a pixel, and is at least 67 pixels long here: under 2 % of the
      // area.
      EXPECT_GE(share, area[crop].low * 0.98);
      EXPECT_LE(share, area[crop].high * 1.02);
      EXPECT_GE(double(r.width) / r.height, 0.75 * 0.98);
      EXPECT_LE(double(r.width) / r.height, 4.0 / 3 * 1.02);
      tally.area += share / kRecords;
      tally.flips += plan.flip;
      tally.jitters += plan.jitter.has_value();
      tally.greys += plan.greyscale;
      tally.blurs += plan.blur_radius.has_value();
      tally.solarized += plan.solarize;
      if (plan.blur_radius) {
        EXPECT_TRUE(*plan.blur_radius >= 0.1f && *plan.blur_radius <= 2.0f);
      }
      if (!plan.jitter) continue;
      orders.insert(plan.jitter->order);
      EXPECT_TRUE(plan.jitter->brightness >= 0.6f && plan.jitter->brightness <= 1.4f);
      EXPECT_TRUE(plan.jitter->contrast >= 0.6f && plan.jitter->contrast <= 1.4f);
      EXPECT_TRUE(plan.jitter->saturation >= 0.8f && plan.jitter->saturation <= 1.2f);
      EXPECT_TRUE(std::abs(plan.jitter->hue) <= 0.1);
    }
    EXPECT_NEAR(tally.flips / double{kRecords}, 0.5, kTolerance);
    EXPECT_NEAR(tally.jitters / double{kRecords}, 0.8, kTolerance);
    EXPECT_NEAR(tally.greys / double{kRecords}, 0.2, kTolerance);
    EXPECT_NEAR(tally.blurs / double{kRecords}, blur[crop], kTolerance);
    EXPECT_NEAR(tally.solarized / double{kRecords}, solarize[crop], kTolerance);
    EXPECT_EQ(orders.size(), 24u) << "all permutations of the four adjustments occur";
    // Large shares are drawn again when they do not fit: the mean lies below the middle of the range, but not
    // far.
    EXPECT_NEAR(tally.area, (area[crop].low + area[crop].high) / 2, 0.1);
  }
}

TEST(MultiCrop, RefusesCropsLargerThanThePictures) {
  MultiCropOptions options = small(1);
  validate(options, 28, 28, 1);
  options.global_size = 32;
  EXPECT_TRUE(test::mentions(test::error_of(ErrorKind::usage, [&] { validate(options, 40, 28, 1); }),
                             {"data.global_size is 32", "40 x 28", "at most 28"}));
  options = small(1);
  options.local_size = 29;
  EXPECT_TRUE(test::mentions(test::error_of(ErrorKind::usage, [&] { validate(options, 28, 28, 1); }),
                             {"data.local_size is 29", "at most 28"}));
  options.local_crops = 0;  // no local crop, no local size
  validate(options, 28, 28, 1);
}

TEST(MultiCrop, RefusesOptionsThatMeanNothing) {
  const auto refused = [](auto change, std::initializer_list<std::string> parts) {
    MultiCropOptions options = small(3);
    change(options);
    EXPECT_TRUE(
        test::mentions(test::error_of(ErrorKind::usage, [&] { validate(options, 32, 32, 3); }), parts));
  };
  refused([](auto& o) { o.global_crops = 0; }, {"global crops is 0"});
  refused([](auto& o) { o.local_crops = -1; }, {"data.local_crops is -1"});
  refused([](auto& o) { o.local_size = 0; }, {"data.local_size is 0"});
  refused([](auto& o) { o.global_scale = {0.8, 0.4}; }, {"data.global_scale_min and _max are 0.8 and 0.4"});
  refused([](auto& o) { o.local_scale = {0, 0.4}; }, {"data.local_scale_min and _max are 0 "});
  refused([](auto& o) { o.jitter = 1.5; }, {"data.jitter_probability is 1.5"});
  refused([](auto& o) { o.flip = NAN; }, {"data.flip_probability is nan"});
  refused([](auto& o) { o.hue = 0.6; }, {"data.hue is 0.6", "0.5"});
  refused([](auto& o) { o.blur_lowest_radius = 3; }, {"data.blur_radius_min and _max are 3 and 2"});
  refused([](auto& o) { o.mean.pop_back(); }, {"data.mean has 2", "3 channels"});
}

}  // namespace
}  // namespace bireme
