#include "core/data/prepare_images.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>

#include "core/data/dataset.h"
#include "tests/support/encode.h"
#include "tests/support/expect_error.h"
#include "tests/support/tar.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;

std::string rgb_png(int width, int height, int seed = 0) {
  return test::png({width, height, 8, PNG_COLOR_TYPE_RGB, test::ramp(width, height, 3, seed)});
}
std::string grey_png(int width, int height, const std::string& pixels) {
  return test::png({width, height, 8, PNG_COLOR_TYPE_GRAY, pixels});
}
std::string idx_file(std::initializer_list<int> sizes, const std::string& entries) {
  std::string bytes{0, 0, 8, static_cast<char>(sizes.size())};
  for (const int size : sizes)
    for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<char>(size >> shift));
  return bytes + entries;
}

class PrepareImages : public testing::Test {
 protected:
  PrepareImagesOptions options(const std::vector<std::string>& inputs) const {
    PrepareImagesOptions options;
    for (const std::string& input : inputs) options.inputs.push_back(folder_.path() / input);
    options.output = output_;
    return options;
  }
  std::string text(const EncodedPicture& picture) const {
    return {picture.bytes.begin(), picture.bytes.end()};
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  test::TemporaryFolder folder_;
  std::filesystem::path output_ = folder_.path() / "out";
};

TEST_F(PrepareImages, AFolderOfClassFoldersBecomesRecordsInOrderOfPath) {
  folder_.write("in/dog/2.png", rgb_png(8, 6, 2));
  folder_.write("in/dog/deep/1.PNG", rgb_png(8, 6, 1));
  folder_.write("in/cat/9.jpeg", test::jpeg(8, 6, test::ramp(8, 6, 3)));
  folder_.write("in/cat/notes.txt", "no picture");
  folder_.write("in/cat/._9.jpeg", "what some systems leave behind");
  folder_.write("in/zebra.png", rgb_png(8, 6, 3));  // beside the class folders: no class
  std::vector<std::int64_t> progress;
  PrepareImagesOptions wanted = options({"in"});
  wanted.progress = [&](std::int64_t done, std::int64_t total) {
    progress.insert(progress.end(), {done, total});
  };
  const PrepareImagesReport report = prepare_images(wanted);
  EXPECT_EQ(report.records, 4);
  EXPECT_EQ(report.ignored, 2);
  EXPECT_EQ(report.classes, (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(progress, (std::vector<std::int64_t>{4, 4}));

  const Dataset dataset = Dataset::open(output_);
  EXPECT_EQ(dataset.labels(), (std::vector<std::int32_t>{0, 1, 1, -1}));
  EXPECT_EQ(dataset.manifest().width, 8);
  EXPECT_EQ(dataset.manifest().split, "train");
  EXPECT_EQ(dataset.read(0).codec, Codec::raw);  // a small JPEG is stored as pixels
  EXPECT_EQ(dataset.read(0).bytes.size(), 8u * 6 * 3);
  EXPECT_EQ(text(dataset.read(1)), test::ramp(8, 6, 3, 2));
  EXPECT_EQ(text(dataset.read(2)), test::ramp(8, 6, 3, 1));
  EXPECT_EQ(text(dataset.read(3)), test::ramp(8, 6, 3, 3));
}

TEST_F(PrepareImages, AnArchiveGivesTheSameDatasetAsItsFolder) {
  std::string tar;
  for (const char* name : {"train/a/1.png", "train/b/1.png", "train/b/2.png"}) {
    const std::string bytes = rgb_png(9, 9, name[6] + name[8]);
    folder_.write(std::string("in/") + name, bytes);
    tar += test::tar_member(name, bytes);
  }
  folder_.write("in.tar", tar + test::tar_member("train/list.tsv", "x") + test::tar_end());
  EXPECT_EQ(prepare_images(options({"in.tar"})).ignored, 1);
  const std::string fingerprint = Dataset::open(output_).fingerprint();
  EXPECT_EQ(Dataset::open(output_).manifest().classes, (std::vector<std::string>{"a", "b"}));
  PrepareImagesOptions again = options({"in"});
  again.replace = true;
  prepare_images(again);
  EXPECT_EQ(Dataset::open(output_).fingerprint(), fingerprint);
}

TEST_F(PrepareImages, NamesInAnArchiveReachNothingOutside) {
  folder_.write("in.tar", test::tar_member("../../escaped/1.png", rgb_png(4, 4)) +
                              test::tar_member("/absolute/2.png", rgb_png(4, 4)) +
                              test::tar_member("x/link.png", "", '2', "/etc/passwd") + test::tar_end());
  EXPECT_EQ(prepare_images(options({"in.tar"})).records, 2);
  EXPECT_EQ(names(), (std::vector<std::string>{"in.tar", "out"}));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "../escaped"));
}

TEST_F(PrepareImages, LargePicturesKeepTheBytesOfTheirFiles) {
  const std::string jpeg = test::jpeg(100, 80, test::ramp(100, 80, 3)), png = rgb_png(65, 64);
  folder_.write("in/a/1.jpg", jpeg);
  folder_.write("in/a/2.png", png);
  folder_.write("in/a/3.png", rgb_png(64, 64));
  prepare_images(options({"in"}));
  const Dataset dataset = Dataset::open(output_);
  EXPECT_EQ(dataset.manifest().width, 0);  // sizes differ
  EXPECT_EQ(dataset.manifest().classes, std::vector<std::string>{"a"});
  EXPECT_EQ(dataset.read(0).codec, Codec::jpeg);
  EXPECT_EQ(text(dataset.read(0)), jpeg);
  EXPECT_EQ(dataset.read(0).width, 100);
  EXPECT_EQ(dataset.read(1).codec, Codec::png);
  EXPECT_EQ(text(dataset.read(1)), png);
  EXPECT_EQ(dataset.read(2).codec, Codec::raw);
}

TEST_F(PrepareImages, ResizesTheShorterSide) {
  folder_.write("in/1.jpg", test::jpeg(300, 200, test::ramp(300, 200, 3)));
  folder_.write("in/2.jpg", test::jpeg(90, 150, test::ramp(90, 150, 3)));
  const std::string fits = test::jpeg(100, 120, test::ramp(100, 120, 3));
  folder_.write("in/3.jpg", fits);
  PrepareImagesOptions wanted = options({"in"});
  wanted.image_size = 100;
  prepare_images(wanted);
  const Dataset dataset = Dataset::open(output_);
  const auto size = [&](std::int64_t i) { return std::pair(dataset.read(i).width, dataset.read(i).height); };
  EXPECT_EQ(size(0), std::pair(150, 100));
  EXPECT_EQ(size(1), std::pair(100, 166));  // 150 · 100 / 90 = 166.7, cut as torchvision cuts it
  EXPECT_EQ(text(dataset.read(2)), fits);   // not encoded a second time
  EXPECT_EQ(PictureDecoder().decode(dataset.read(0), "").width, 150);
  EXPECT_TRUE(dataset.manifest().classes.empty());
  EXPECT_EQ(dataset.labels(), (std::vector<std::int32_t>{-1, -1, -1}));
}

TEST_F(PrepareImages, MeanAndDeviationCoverAllPixels) {
  // Channel values 0, 51, 102, 255 (shares 0, 0.2, 0.4, 1): mean 0.4, deviation √(0.3 - 0.16).
  folder_.write("in/1.png", grey_png(2, 1, std::string("\x00\x33", 2)));
  folder_.write("in/2.png", grey_png(1, 2, "\x66\xff"));
  prepare_images(options({"in"}));
  const ImageManifest grey = Dataset::open(output_).manifest();
  ASSERT_EQ(grey.channels, 1);
  EXPECT_NEAR(grey.pixel_mean[0], 0.4, 1e-12);
  EXPECT_NEAR(grey.pixel_std[0], std::sqrt(0.14), 1e-12);

  // With one colour picture among them all count as RGB: red 255 twice more.
  folder_.write("in/3.png", test::png({2, 1, 8, PNG_COLOR_TYPE_RGB, std::string("\xff\0\0\xff\0\0", 6)}));
  PrepareImagesOptions again = options({"in"});
  again.replace = true;
  prepare_images(again);
  const ImageManifest mixed = Dataset::open(output_).manifest();
  ASSERT_EQ(mixed.channels, 3);
  EXPECT_NEAR(mixed.pixel_mean[0], 3.6 / 6, 1e-12);
  EXPECT_NEAR(mixed.pixel_mean[2], 1.6 / 6, 1e-12);
  EXPECT_NEAR(mixed.pixel_std[0], std::sqrt(3.2 / 6 - 0.36), 1e-12);
}

TEST_F(PrepareImages, TheResultDoesNotDependOnThreads) {
  for (int i = 0; i < 300; ++i)
    folder_.write("in/" + std::to_string(i % 7) + "/" + std::to_string(i) + ".png", rgb_png(5 + i % 3, 5, i));
  std::vector<std::string> fingerprints;
  const int before = omp_get_max_threads();
  for (const int threads : {1, 2, 5}) {
    omp_set_num_threads(threads);
    PrepareImagesOptions wanted = options({"in"});
    wanted.replace = true;
    wanted.shard_size = 64;
    EXPECT_EQ(prepare_images(wanted).records, 300);
    fingerprints.push_back(Dataset::open(output_).fingerprint());
  }
  omp_set_num_threads(before);
  EXPECT_EQ(fingerprints[1], fingerprints[0]);
  EXPECT_EQ(fingerprints[2], fingerprints[0]);
  EXPECT_EQ(Dataset::open(output_).manifest().shards.size(), 5u);
}

TEST_F(PrepareImages, ABrokenPictureIsNamedAndLeavesNothing) {
  folder_.write("in/a/1.png", rgb_png(8, 8));
  folder_.write("in/a/2.jpg", test::jpeg(80, 80, test::ramp(80, 80, 3)).substr(0, 900));
  folder_.write("in/b/3.png", rgb_png(8, 8));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { prepare_images(options({"in"})); }),
                       {"in/a/2.jpg", "does not decode", "--skip-broken"}));
  EXPECT_EQ(names(), std::vector<std::string>{"in"});

  PrepareImagesOptions lenient = options({"in"});
  lenient.skip_broken = true;
  const PrepareImagesReport report = prepare_images(lenient);
  EXPECT_EQ(report.records, 2);
  ASSERT_EQ(report.broken.size(), 1u);
  EXPECT_TRUE(mentions(report.broken[0], {"in/a/2.jpg", "does not decode"}));
  EXPECT_EQ(Dataset::open(output_).labels(), (std::vector<std::int32_t>{0, 1}));
}

TEST_F(PrepareImages, WithoutAnyGoodPictureThereIsNoDataset) {
  folder_.write("in/a/1.png", "not a picture");
  PrepareImagesOptions lenient = options({"in"});
  lenient.skip_broken = true;
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { prepare_images(lenient); }), {"no picture is left"}));
  EXPECT_EQ(names(), std::vector<std::string>{"in"});
}

TEST_F(PrepareImages, AnIdxPairInAnyOrder) {
  folder_.write("images", idx_file({3, 2, 2}, "aaaabbbbcccc"));
  folder_.write("labels", idx_file({3}, std::string("\x02\x00\x01", 3)));
  const PrepareImagesReport report = prepare_images(options({"labels", "images"}));
  EXPECT_EQ(report.records, 3);
  EXPECT_EQ(report.classes, (std::vector<std::string>{"0", "1", "2"}));
  const Dataset dataset = Dataset::open(output_);
  EXPECT_EQ(text(dataset.read(1)), "bbbb");
  EXPECT_EQ(dataset.read(1).channels, 1);
  EXPECT_EQ(dataset.labels(), (std::vector<std::int32_t>{2, 0, 1}));
}

TEST_F(PrepareImages, InputsThatDoNotFitAreRefused) {
  folder_.write("images", idx_file({3, 2, 2}, "aaaabbbbcccc"));
  folder_.write("labels", idx_file({2}, "\x01\x01"));
  folder_.write("lie", idx_file({9, 2, 2}, "aaaabbbbcccc"));
  folder_.write("empty/readme.txt", "");
  const auto error = [&](const std::vector<std::string>& inputs) {
    return error_of(ErrorKind::data, [&] { prepare_images(options(inputs)); });
  };
  EXPECT_TRUE(mentions(error({"images", "labels"}), {"3 images, but 2 labels"}));
  EXPECT_TRUE(mentions(error({"lie"}), {"declares 36 entries but holds 12", "lie"}));
  EXPECT_TRUE(mentions(error({"labels"}), {"labels, but no images"}));
  EXPECT_TRUE(mentions(error({"images", "images"}), {"second file of images"}));
  EXPECT_TRUE(mentions(error({"images", "empty"}), {"cannot be mixed"}));
  EXPECT_TRUE(mentions(error({"empty"}), {"no .jpg, .jpeg or .png file among 1 files"}));
  EXPECT_TRUE(mentions(error({"none"}), {"does not exist", "none"}));
  EXPECT_TRUE(mentions(error({"empty/readme.txt"}), {"readme.txt", "tar"}));
}

TEST_F(PrepareImages, OnlyADatasetMakesWayAndOnlyWhenAsked) {
  folder_.write("in/1.png", rgb_png(4, 4));
  prepare_images(options({"in"}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::usage, [&] { prepare_images(options({"in"})); }), {"--force", "out"}));
  PrepareImagesOptions forced = options({"in"});
  forced.replace = true;
  forced.split = "second";
  prepare_images(forced);
  EXPECT_EQ(Dataset::open(output_).manifest().split, "second");

  folder_.write("home/letter.txt", "dear");
  forced.output = folder_.path() / "home";
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [&] { prepare_images(forced); }), {"other files"}));
  EXPECT_EQ(folder_.read("home/letter.txt"), "dear");
}

TEST_F(PrepareImages, AFullDiskLeavesNothingAndIsAnInputOutputError) {
  for (int i = 0; i < 40; ++i) folder_.write("in/" + std::to_string(i) + ".png", rgb_png(60, 60, i));
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{200000, before.rlim_max};  // the shard needs 432000 bytes
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = error_of(ErrorKind::checkpoint, [&] { prepare_images(options({"in"})); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(mentions(message, {"shard-00000.h5"}));
  EXPECT_EQ(names(), std::vector<std::string>{"in"});
}

}  // namespace
}  // namespace bireme
