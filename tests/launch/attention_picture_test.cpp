#include "launch/attention_picture.h"

#include <gtest/gtest.h>
#include <png.h>

#include <filesystem>

#include "core/base/error.h"
#include "core/image/png_writer.h"
#include "launch/gnuplot.h"

namespace bireme {
namespace {

Rgb at(const Picture& picture, int x, int y) {
  const std::uint8_t* pixel = &picture.pixels[(static_cast<std::size_t>(y) * picture.width + x) * 3];
  return {pixel[0], pixel[1], pixel[2]};
}
void expect_color(Rgb actual, Rgb expected) {
  EXPECT_EQ(actual.red, expected.red);
  EXPECT_EQ(actual.green, expected.green);
  EXPECT_EQ(actual.blue, expected.blue);
}

TEST(AttentionPicture, ShowsPictureMeanAndHeadsAsWholePatches) {
  const Picture grey{.width = 2, .height = 2, .channels = 1, .pixels = {0, 50, 100, 200}};
  // Head 1 looks at the upper left patch, head 2 at the lower right; their mean at both.
  const AttentionMaps maps{.heads = 2, .rows = 2, .columns = 2, .values = {1, 0, 0, 0, 0, 0, 0, 1}};
  const Picture drawn = attention_picture(std::array{grey}, std::array{maps},
                                          {.cell_pixels = 20, .names = {}, .has_captions = false});
  // Four cells of 20 pixels and gaps of 6.
  ASSERT_EQ(drawn.width, 6 + 4 * 26);
  ASSERT_EQ(drawn.height, 6 + 26);
  expect_color(at(drawn, 0, 0), {255, 255, 255});
  expect_color(at(drawn, 6, 6), {0, 0, 0});
  expect_color(at(drawn, 25, 25), {200, 200, 200});
  const Rgb low = viridis(0), high = viridis(1);
  for (const auto& [cell, upper_left, lower_right] :
       {std::tuple{1, high, high}, {2, high, low}, {3, low, high}}) {
    const int left = 6 + cell * 26;
    expect_color(at(drawn, left, 6), upper_left);
    expect_color(at(drawn, left + 9, 15), upper_left);  // the patch's last pixel
    expect_color(at(drawn, left + 19, 25), lower_right);
    expect_color(at(drawn, left + 19, 6), low);
  }
}

TEST(AttentionPicture, ConstantMapAndOddPatchesAreDrawn) {
  const Picture color{.width = 3, .height = 2, .channels = 3, .pixels = std::vector<std::uint8_t>(18, 9)};
  const AttentionMaps maps{.heads = 1, .rows = 2, .columns = 3, .values = std::vector<float>(6, 0.5F)};
  const Picture drawn =
      attention_picture(std::array{color}, std::array{maps}, {.cell_pixels = 10, .names = {"a shoe"}});
  EXPECT_EQ(drawn.width, 6 + 3 * (12 + 6));  // 10 rounded up to whole patches
  EXPECT_EQ(drawn.height, 6 + 20 + (20 + 6) + (12 + 6));
}

TEST(AttentionPicture, RefusesWhatDoesNotMatch) {
  const Picture grey{.width = 1, .height = 1, .channels = 1, .pixels = {0}};
  const AttentionMaps maps{.heads = 1, .rows = 1, .columns = 1, .values = {1}};
  const AttentionMaps torn{.heads = 2, .rows = 1, .columns = 1, .values = {1}};
  EXPECT_THROW(attention_picture(std::array{grey, grey}, std::array{maps}), Error);
  EXPECT_THROW(attention_picture(std::array{grey}, std::array{torn}), Error);
  EXPECT_THROW(attention_picture({}, {}), Error);
}

// The luminance of viridis rises all the way, which is what makes maps readable in grey print.
TEST(AttentionPicture, ScaleRisesInBrightness) {
  const auto luminance = [](Rgb c) { return 0.2126 * c.red + 0.7152 * c.green + 0.0722 * c.blue; };
  for (int i = 0; i < 100; ++i)
    EXPECT_LT(luminance(viridis(i / 100.0)), luminance(viridis((i + 1) / 100.0))) << i;
  expect_color(viridis(0.5), {33, 145, 140});
  expect_color(viridis(-1), viridis(0));
  expect_color(viridis(2), viridis(1));
}

TEST(PngWriter, PictureReadsBackToTheSamePixels) {
  const TemporaryFolder folder;
  for (const int channels : {1, 3}) {
    SCOPED_TRACE(channels);
    Picture picture{.width = 7, .height = 5, .channels = channels, .pixels = {}};
    for (int i = 0; i < 35 * channels; ++i) picture.pixels.push_back(static_cast<std::uint8_t>(i * 37));
    const auto path = folder.path() / "a.png";
    write_png(path, picture);
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    ASSERT_NE(png_image_begin_read_from_file(&image, path.c_str()), 0) << image.message;
    EXPECT_EQ(image.width, 7U);
    EXPECT_EQ(image.height, 5U);
    image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
    std::vector<std::uint8_t> pixels(PNG_IMAGE_SIZE(image));
    ASSERT_NE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr), 0) << image.message;
    EXPECT_EQ(pixels, picture.pixels);
  }
}

TEST(PngWriter, RefusesWhatIsNoPicture) {
  EXPECT_THROW(write_png("/tmp/never.png", Picture{.width = 2, .height = 2, .channels = 3, .pixels = {1}}),
               Error);
  EXPECT_THROW(write_png("/tmp/never.png", Picture{}), Error);
  try {
    write_png("/no/such/folder/a.png", Picture{.width = 1, .height = 1, .channels = 1, .pixels = {1}});
    FAIL() << "written into a folder that does not exist";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 4);
  }
}

}  // namespace
}  // namespace bireme
