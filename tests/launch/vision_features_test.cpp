#include "launch/vision_features.h"

#include <gtest/gtest.h>

#include "core/data/writer.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace bireme::test {
namespace {

constexpr int kSide = 8, kPictures = 3;

/// A value for every pixel of every picture, no two neighbours alike.
std::uint8_t value_at(int picture, int pixel, int channel) {
  return static_cast<std::uint8_t>((picture * 83 + pixel * 7 + channel * 31) % 256);
}

Dataset dataset_of(const TemporaryFolder& folder, int channels) {
  const std::filesystem::path path = folder.path() / "set";
  DatasetWriter writer({.output = path, .classes = {"a"}});
  for (int picture = 0; picture < kPictures; ++picture) {
    EncodedPicture encoded{.bytes = {}, .height = kSide, .width = kSide, .channels = channels, .label = 0};
    for (int pixel = 0; pixel < kSide * kSide; ++pixel)
      for (int c = 0; c < channels; ++c) encoded.bytes.push_back(value_at(picture, pixel, c));
    writer.append(std::move(encoded));
  }
  writer.finish(std::vector<double>(static_cast<std::size_t>(channels), 0.5),
                std::vector<double>(static_cast<std::size_t>(channels), 0.25));
  return Dataset::open(path);
}

TEST(EvaluationPictures, AreNormalizedByChannel) {
  const TemporaryFolder folder;
  const std::vector<double> mean{0.1, 0.2, 0.3}, deviation{0.5, 0.25, 2};
  const EvaluationPictures pictures(dataset_of(folder, 3), kSide, 3, mean, deviation);
  const Tensor pixels = pictures.pixels(*make_host_memory(), 1, kPictures);
  ASSERT_EQ(pixels.shape(), (Shape{2, 3, kSide, kSide}));
  const float* value = pixels.data<float>();
  for (int picture = 1; picture < kPictures; ++picture)
    for (std::size_t c = 0; c < 3; ++c)
      for (int pixel = 0; pixel < kSide * kSide; ++pixel)
        ASSERT_NEAR(*value++,
                    (value_at(picture, pixel, static_cast<int>(c)) / 255.0 - mean[c]) / deviation[c], 1e-6);
}

TEST(EvaluationPictures, GreyOnesAreShownToAColourModelInEachChannel) {
  const TemporaryFolder folder;
  const EvaluationPictures pictures(dataset_of(folder, 1), kSide, 3, {0.5}, {0.25});
  const Tensor pixels = pictures.pixels(*make_host_memory(), 0, 1);
  for (int c = 0; c < 3; ++c)
    for (int pixel = 0; pixel < kSide * kSide; ++pixel)
      ASSERT_NEAR(pixels.data<float>()[c * kSide * kSide + pixel],
                  (value_at(0, pixel, 0) / 255.0 - 0.5) / 0.25, 1e-6);
}

TEST(EvaluationPictures, ColourIsRefusedByAGreyModel) {
  const TemporaryFolder folder;
  const Dataset dataset = dataset_of(folder, 3);
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { EvaluationPictures(dataset, kSide, 1, {0.5}, {0.25}); }),
               {"has 3 channels, the model reads 1", "shard-00000.h5", "grey"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data,
                                [&] {
                                  EvaluationPictures(dataset, kSide, 1, {0.5, 0.5, 0.5}, {0.25, 0.25, 0.25});
                                }),
                       {"of 3 channels, the model reads 1", "set"}));
}

}  // namespace
}  // namespace bireme::test
