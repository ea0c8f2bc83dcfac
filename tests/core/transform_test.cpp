#include "core/image/transform.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "core/image/blur.h"
#include "core/image/color.h"
#include "core/image/multi_crop.h"
#include "core/image/resize.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"

namespace bireme {
namespace {

using test::Golden;

Picture picture_of(const Tensor& pixels) {
  const Shape& shape = pixels.shape();
  const auto values = pixels.values<std::uint8_t>();
  return {static_cast<int>(shape[1]),
          static_cast<int>(shape[0]),
          static_cast<int>(shape[2]),
          {values.begin(), values.end()}};
}

/// Every pixel equal; the worst one is printed.
void expect_pixels(const Picture& actual, const Picture& expected) {
  ASSERT_EQ(actual.width, expected.width);
  ASSERT_EQ(actual.height, expected.height);
  ASSERT_EQ(actual.channels, expected.channels);
  int worst = 0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < expected.pixels.size(); ++i) {
    const int distance = std::abs(actual.pixels[i] - expected.pixels[i]);
    if (distance > worst) worst = distance, where = i;
  }
  EXPECT_EQ(worst, 0) << "value " << where << " is " << int{actual.pixels[where]} << ", expected "
                      << int{expected.pixels[where]};
}

Picture textured(int width, int height, int channels, std::uint64_t seed = 1) {
  Picture picture{width, height, channels, {}};
  RandomStream random(seed, 0, RandomUse::test);
  for (int i = 0; i < width * height * channels; ++i)
    picture.pixels.push_back(static_cast<std::uint8_t>(random.below(256)));
  return picture;
}

/// One case of augment.h5.
struct Case {
  const Golden& golden;
  std::string path;

  double number(const char* name) const { return golden.number(path, name); }
  int integer(const char* name) const { return static_cast<int>(golden.reader().integer(path, name)); }
  Picture input() const { return picture_of(golden.tensor("inputs/" + golden.text(path, "image"))); }
  Picture output() const { return picture_of(golden.tensor(path)); }
};

Picture in_place(const Case& c, const std::function<void(Planes&)>& step) {
  Planes planes = to_planes(c.input());
  step(planes);
  return to_picture(planes);
}

CropPlan plan_of(const Case& c) {
  CropPlan plan;
  plan.rectangle = {c.integer("top"), c.integer("left"), c.integer("height"), c.integer("width")};
  plan.side = c.integer("size");
  return plan;
}

/// All steps of a crop: flip and solarise are part of each `pipeline` case.
CropPlan pipeline_of(const Case& c) {
  CropPlan plan = plan_of(c);
  const auto factors = c.golden.numbers(c.path, "factors"), order = c.golden.numbers(c.path, "jitter_order");
  ColorJitter jitter{.brightness = static_cast<float>(factors[0]),
                     .contrast = static_cast<float>(factors[1]),
                     .saturation = static_cast<float>(factors[2]),
                     .hue = factors[3]};
  for (int i = 0; i < 4; ++i) jitter.order[i] = static_cast<int>(order[i]);
  plan.flip = plan.solarize = true;
  plan.jitter = jitter;
  plan.blur_radius = static_cast<float>(c.number("radius"));
  return plan;
}

Picture run(const std::string& op, const Case& c) {
  MultiCrop crops{MultiCropOptions{}};
  const auto factor = [&c] { return static_cast<float>(c.number("factor")); };
  if (op == "resized_crop_bicubic") return to_picture(crops.apply(c.input(), plan_of(c)));
  if (op == "resize_bicubic") return resize(c.input(), c.integer("out_width"), c.integer("out_height"));
  if (op == "resize_bilinear")
    return resize(c.input(), c.integer("out_width"), c.integer("out_height"), Interpolation::bilinear);
  if (op == "flip") {
    const Picture input = c.input();
    Resizer resizer;
    Planes out;
    resizer.load(input);
    resizer.crop({.rectangle = {0, 0, input.height, input.width},
                  .width = input.width,
                  .height = input.height,
                  .flip = true},
                 out);
    return to_picture(out);
  }
  if (op == "grayscale") return in_place(c, to_grey);
  if (op == "solarize") return in_place(c, [&](Planes& p) { solarize(p, c.integer("threshold")); });
  if (op == "brightness") return in_place(c, [&](Planes& p) { adjust_brightness(p, factor()); });
  if (op == "contrast") return in_place(c, [&](Planes& p) { adjust_contrast(p, factor()); });
  if (op == "saturation") return in_place(c, [&](Planes& p) { adjust_saturation(p, factor()); });
  if (op == "hue") return in_place(c, [&](Planes& p) { shift_hue(p, c.number("factor")); });
  if (op == "gaussian_blur")
    return in_place(c, [&](Planes& p) { GaussianBlur()(p, static_cast<float>(c.number("radius"))); });
  if (op == "pipeline") return to_picture(crops.apply(c.input(), pipeline_of(c)));
  if (op == "evaluate_transform")
    return to_picture(EvaluationCrop(c.integer("center_crop"), c.integer("resize_shorter_side"))(c.input()));
  throw std::runtime_error("no such step: " + op);
}

// The formulas are those of Pillow to the bit: no tolerance.
TEST(Transform, EveryStepEqualsPillowToTheBit) {
  const Golden golden("vision/augment.h5");
  std::map<std::string, int> seen;
  for (const std::string& name : golden.members("cases")) {
    const Case c{golden, "cases/" + name};
    const std::string op = golden.text(c.path, "op");
    SCOPED_TRACE(c.path + " " + op);
    ++seen[op];
    if (op != "pipeline_normalized") expect_pixels(run(op, c), c.output());
  }
  EXPECT_EQ(seen.size(), 14u) << "the fixture holds every step";
}

// Exact: fp32 quotients and differences of 8-bit numbers, in the order of the reference.
TEST(Transform, NormalizationEqualsTheReferenceToTheBit) {
  const Golden golden("vision/augment.h5");
  const Normalization normalize({0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f});
  int seen = 0;
  for (const std::string& name : golden.members("cases")) {
    const Case c{golden, "cases/" + name};
    if (golden.text(c.path, "op") != "pipeline_normalized") continue;
    MultiCrop crops{MultiCropOptions{}};
    const Planes& planes = crops.apply(c.input(), pipeline_of(c));
    const Tensor expected = golden.tensor(c.path);
    std::vector<float> actual(expected.elements());
    normalize(planes, actual.data());
    for (std::size_t i = 0; i < actual.size(); ++i)
      ASSERT_EQ(actual[i], expected.values<float>()[i]) << c.path << ", value " << i;
    ++seen;
  }
  EXPECT_EQ(seen, 4);
}

TEST(Transform, CropSizesAndFallbackEqualTheTable) {
  const Golden golden("vision/crop_params.h5");
  const Tensor table = golden.tensor("outputs/table");
  ASSERT_EQ(table.channels(), 11);
  for (std::int64_t i = 0; i < table.rows(); ++i) {
    const double* row = table.data<double>() + i * 11;
    const Size picture{static_cast<int>(row[0]), static_cast<int>(row[1])};
    const Size size = crop_size(picture, row[2], row[3]);
    SCOPED_TRACE(i);
    EXPECT_EQ(size, (Size{static_cast<int>(row[5]), static_cast<int>(row[6])}));
    EXPECT_EQ(size.width <= picture.width && size.height <= picture.height, row[4] != 0);
    const Rectangle fallback = fallback_crop(picture);
    EXPECT_EQ(fallback.top, row[7]);
    EXPECT_EQ(fallback.left, row[8]);
    EXPECT_EQ(fallback.height, row[9]);
    EXPECT_EQ(fallback.width, row[10]);
  }
}

/// The formula of a resize pass as it stands in Pillow, one output at a time.
std::uint8_t resized_value(const std::vector<std::uint8_t>& line, int o, int n_out) {
  const int n_in = static_cast<int>(line.size());
  const double scale = double(n_in) / n_out, f = std::max(scale, 1.0), center = (o + 0.5) * scale;
  const int lo = std::max(int(center - 2 * f + 0.5), 0), hi = std::min(int(center + 2 * f + 0.5), n_in);
  std::vector<double> weights;
  double sum = 0;
  for (int x = lo; x < hi; ++x) {
    const double d = std::abs((x - center + 0.5) / f);
    weights.push_back(d < 1   ? 1.5 * d * d * d - 2.5 * d * d + 1
                      : d < 2 ? -0.5 * d * d * d + 2.5 * d * d - 4 * d + 2
                              : 0);
    sum += weights.back();
  }
  std::int64_t total = 1 << 21;
  for (int x = lo; x < hi; ++x) {
    const double scaled = weights[x - lo] / sum * 4194304;
    total += std::int64_t(scaled + (scaled < 0 ? -0.5 : 0.5)) * line[x];
  }
  return static_cast<std::uint8_t>(std::clamp<std::int64_t>(total >> 22, 0, 255));
}

// Lengths short of, at and past the blocks of the vector loops, and every remainder of the 8 × 8
// transposition.
TEST(Transform, ResizeAgreesWithItsFormulaAtEveryLength) {
  for (const int n_in : {1, 2, 7, 8, 9, 63, 64, 65, 130})
    for (const int n_out : {1, 5, 16, 31, 64, 67}) {
      SCOPED_TRACE(fmt::format("{} to {}", n_in, n_out));
      const Picture in = textured(n_in, n_in + 3, 3, n_in * 100 + n_out);
      const Picture out = resize(in, n_out, n_in + 3);  // one pass: the height stays
      for (int y = 0; y < in.height; ++y)
        for (int c = 0; c < 3; ++c) {
          std::vector<std::uint8_t> line;
          for (int x = 0; x < n_in; ++x) line.push_back(in.pixels[(y * n_in + x) * 3 + c]);
          for (int o = 0; o < n_out; ++o)
            ASSERT_EQ(int{out.pixels[(y * n_out + o) * 3 + c]}, int{resized_value(line, o, n_out)})
                << y << " " << o;
        }
    }
}

TEST(Transform, FlippingTwiceIsTheIdentityAndOnceIsTheMirror) {
  const Picture in = textured(21, 13, 3);
  Resizer resizer;
  Planes out;
  resizer.load(in);
  resizer.crop({.rectangle = {2, 3, 9, 17}, .width = 17, .height = 9, .flip = true}, out);
  const Picture flipped = to_picture(out);
  for (int y = 0; y < 9; ++y)
    for (int x = 0; x < 17; ++x)
      for (int c = 0; c < 3; ++c)
        ASSERT_EQ(flipped.pixels[(y * 17 + x) * 3 + c], in.pixels[((y + 2) * 21 + 3 + 16 - x) * 3 + c]);
}

// A blur whose box is wider than the picture: every index is clamped. The sum is written out in 64 bits.
TEST(Transform, BlurRepeatsTheEdgeWhenTheBoxIsWiderThanThePicture) {
  const BoxBlur box = box_of_gaussian(20);
  ASSERT_GT(box.radius, 9);
  Planes planes = to_planes(textured(9, 5, 1));
  std::vector<std::uint8_t> expected = planes.values;
  const auto pass = [&](int lines, int length, int line_step, int step) {
    for (int l = 0; l < lines; ++l) {
      std::vector<std::uint8_t> in;
      for (int x = 0; x < length; ++x) in.push_back(expected[l * line_step + x * step]);
      const auto at = [&](int x) -> std::uint64_t { return in[std::clamp(x, 0, length - 1)]; };
      for (int x = 0; x < length; ++x) {
        std::uint64_t sum =
            std::uint64_t{box.edge} * (at(x - box.radius - 1) + at(x + box.radius + 1)) + (1 << 23);
        for (int j = -box.radius; j <= box.radius; ++j) sum += box.inner * at(x + j);
        expected[l * line_step + x * step] = static_cast<std::uint8_t>(sum >> 24);
      }
    }
  };
  for (int i = 0; i < 3; ++i) pass(5, 9, 9, 1);
  for (int i = 0; i < 3; ++i) pass(9, 5, 1, 9);
  GaussianBlur()(planes, 20);
  EXPECT_EQ(planes.values, expected);
}

TEST(Transform, OneChannelPicturesKeepTheirValuesWhereColourWouldBeNeeded) {
  const Planes before = to_planes(textured(11, 7, 1));
  for (const auto& step : {std::function<void(Planes&)>(to_grey),
                           {[](Planes& p) { shift_hue(p, 0.1); }},
                           {[](Planes& p) { adjust_saturation(p, 1.2f); }}}) {
    Planes planes = before;
    step(planes);
    EXPECT_EQ(planes.values, before.values);
  }
  // Contrast pulls towards the mean of the values themselves: with a factor of 0 nothing else is left.
  Planes planes = before;
  adjust_contrast(planes, 0);
  double sum = 0;
  for (const std::uint8_t v : before.values) sum += v;
  EXPECT_EQ(planes.values, std::vector<std::uint8_t>(77, static_cast<std::uint8_t>(sum / 77 + 0.5)));
}

TEST(Transform, EvaluationTakesPicturesOfTheModelsSizeAsTheyAre) {
  const Picture in = textured(28, 28, 1);
  expect_pixels(to_picture(EvaluationCrop(28)(in)), in);
  EvaluationCrop crop(28);
  const Planes& cropped = crop(textured(40, 30, 3));
  EXPECT_EQ(cropped.width, 28);
  EXPECT_EQ(cropped.height, 28);
}

TEST(Transform, EvaluationCropsTheMiddle) {
  // Shorter side 32 already: ⌊28·256/224⌋ = 32, so nothing is resized; offsets (44-28)/2 = 8 and (32-28)/2
  // = 2.
  const Picture in = textured(44, 32, 3);
  const Picture out = to_picture(EvaluationCrop(28)(in));
  for (int y = 0; y < 28; ++y)
    for (int i = 0; i < 28 * 3; ++i)
      ASSERT_EQ(out.pixels[y * 84 + i], in.pixels[((y + 2) * 44 + 8) * 3 + i]) << y << " " << i;
}

TEST(Transform, NormalizationRefusesWhatCannotNormalize) {
  EXPECT_TRUE(test::mentions(test::error_of(ErrorKind::usage,
                                            [] {
                                              Normalization({0.5f}, {0.5f, 0.5f});
                                            }),
                             {"1 means", "2 standard deviations", "data.mean"}));
  EXPECT_TRUE(test::mentions(test::error_of(ErrorKind::usage, [] { Normalization({0.5f}, {0.0f}); }),
                             {"channel 0", "deviation 0", "above 0"}));
}

}  // namespace
}  // namespace bireme
