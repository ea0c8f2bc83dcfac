#include "core/data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <set>
#include <thread>

#include "tests/support/expect.h"
#include "tests/support/expect_error.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;

constexpr std::int64_t kRecords = 53;

/// Record r: a grey picture of 12 × 10 pixels, labelled r, whose pixels depend on r.
EncodedPicture picture_of(std::int64_t record) {
  EncodedPicture picture{.codec = Codec::raw,
                         .bytes = {},
                         .height = 10,
                         .width = 12,
                         .channels = 1,
                         .label = static_cast<std::int32_t>(record)};
  RandomStream random(5, static_cast<std::uint64_t>(record), RandomUse::test);
  for (int i = 0; i < 120; ++i) picture.bytes.push_back(static_cast<std::uint8_t>(random.below(256)));
  return picture;
}

PictureSource source_of(std::function<EncodedPicture(std::int64_t)> read = picture_of) {
  return {.read = std::move(read),
          .name = [](std::int64_t record) { return "record " + std::to_string(record); }};
}

MultiCropOptions crops() {
  MultiCropOptions options;
  options.global_size = 8;
  options.local_size = 4;
  options.local_crops = 3;
  options.mean = {0.5f};
  options.std = {0.25f};
  return options;
}

Sampler sampler(std::int64_t batch_size, bool shuffled = true) {
  return Sampler({.records = kRecords, .batch_size = batch_size, .seed = 11, .shuffled = shuffled});
}

/// Waits for what other threads bring about; false after ten seconds.
bool eventually(const std::function<bool()>& holds) {
  for (int i = 0; i < 10000; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

/// The crops of one picture of a batch, of all groups one after another.
std::vector<float> pixels_of(const ImageBatch& batch, std::size_t index) {
  std::vector<float> pixels;
  for (const ImageGroup& group : batch.groups) {
    const std::int64_t size = group.side * group.side,
                       pictures = static_cast<std::int64_t>(batch.records.size());
    for (int crop = 0; crop < group.crops; ++crop) {
      const float* from =
          group.pixels.data<float>() + (crop * pictures + static_cast<std::int64_t>(index)) * size;
      pixels.insert(pixels.end(), from, from + size);
    }
  }
  return pixels;
}

struct Delivered {
  std::int64_t record;
  std::int32_t label;
  std::uint64_t epoch;
  std::vector<float> pixels;
  friend bool operator==(const Delivered&, const Delivered&) = default;
};

/// Everything that `steps` steps deliver over all ranks, in the order of the global batch.
std::vector<Delivered> deliver(LoaderOptions options, std::int64_t steps) {
  std::vector<std::unique_ptr<ImageLoader>> ranks;
  for (options.data_rank = 0; options.data_rank < options.data_size; ++options.data_rank)
    ranks.push_back(
        std::make_unique<ImageLoader>(options, crops(), sampler(12), source_of(), make_host_memory()));
  std::vector<Delivered> all;
  for (std::int64_t part = 0; part < steps * options.accumulate; ++part)
    for (const auto& rank : ranks) {
      const ImageBatch batch = rank->next();
      EXPECT_EQ(batch.global_count, 12);
      for (std::size_t i = 0; i < batch.records.size(); ++i)
        all.push_back({batch.records[i], batch.labels[i], batch.epoch, pixels_of(batch, i)});
    }
  return all;
}

TEST(Loader, CropsEachPictureAsMultiCropDoesAndPutsThemCropMajor) {
  ImageLoader loader({.seed = 3}, crops(), sampler(5), source_of(), make_host_memory());
  MultiCrop crop(crops());
  for (int step = 0; step < 12; ++step) {  // ten steps an epoch
    EXPECT_EQ(loader.step(), step);
    const ImageBatch batch = loader.next();
    EXPECT_EQ(batch.records, sampler(5).share(step, 0, 1).records);
    EXPECT_EQ(batch.epoch, step < 10 ? 0u : 1u);
    ASSERT_EQ(batch.groups.size(), 2u);
    EXPECT_EQ(batch.groups[0].pixels.shape(), (Shape{10, 1, 8, 8}));
    EXPECT_EQ(batch.groups[1].pixels.shape(), (Shape{15, 1, 4, 4}));
    for (std::size_t i = 0; i < 5; ++i) {
      const std::int64_t record = batch.records[i];
      EXPECT_EQ(batch.labels[i], record);
      std::vector<float> expected(2 * 64 + 3 * 16);
      float* at = expected.data();
      crop(Picture{12, 10, 1, picture_of(record).bytes}, {3, static_cast<std::uint64_t>(record), batch.epoch},
           std::vector<float*>{at, at + 64, at + 128, at + 144, at + 160});
      EXPECT_EQ(pixels_of(batch, i), expected);
    }
  }
}

TEST(Loader, CropsOfOneSizeMakeOneGroup) {
  MultiCropOptions options = crops();
  options.local_size = options.global_size;
  ImageLoader loader({}, options, sampler(4), source_of(), make_host_memory());
  const ImageBatch batch = loader.next();
  ASSERT_EQ(batch.groups.size(), 1u);
  EXPECT_EQ(batch.groups[0].crops, 5);
  EXPECT_EQ(batch.groups[0].pixels.shape(), (Shape{20, 1, 8, 8}));
}

TEST(Loader, DeliversTheSameBitsForAnyNumberOfWorkersRanksAndParts) {
  const auto expected = deliver({.seed = 1}, 6);
  ASSERT_EQ(expected.size(), 72u);
  EXPECT_EQ(deliver({.seed = 1, .workers = 4}, 6), expected);
  EXPECT_EQ(deliver({.seed = 1, .data_size = 3, .workers = 2, .parts_ahead = 1}, 6), expected);
  EXPECT_EQ(deliver({.seed = 1, .accumulate = 4}, 6), expected);
  EXPECT_EQ(deliver({.seed = 1, .accumulate = 2, .data_size = 2, .workers = 3}, 6), expected);
  EXPECT_NE(deliver({.seed = 2}, 6), expected);
}

TEST(Loader, GoesOnFromAnyStep) {
  const auto whole = deliver({.seed = 1}, 6);
  for (const std::int64_t start :
       {1, 3, 5}) {  // four steps an epoch: before, at the end of and past the first
    const auto rest = deliver({.seed = 1, .start_step = start, .accumulate = 2, .data_size = 3}, 6 - start);
    EXPECT_EQ(rest, std::vector<Delivered>(whole.begin() + start * 12, whole.end())) << start;
  }
}

TEST(Loader, ReadsOnOneThreadAndNoFurtherAheadThanAllowed) {
  std::atomic<std::int64_t> reads = 0;
  std::set<std::thread::id> threads;  // of one thread only, if the promise holds; TSan sees it if not
  const auto read = [&](std::int64_t record) {
    threads.insert(std::this_thread::get_id());
    ++reads;
    return picture_of(record);
  };
  {
    ImageLoader loader({.workers = 2, .parts_ahead = 3}, crops(), sampler(4), source_of(read),
                       make_host_memory());
    for (std::int64_t taken = 0; taken < 5; ++taken) {
      EXPECT_TRUE(eventually([&] { return reads == (taken + 3) * 4; })) << reads;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));  // a reader that ran on would show now
      EXPECT_EQ(reads, (taken + 3) * 4);
      loader.next();
    }
  }
  EXPECT_EQ(threads.size(), 1u);
  EXPECT_FALSE(threads.contains(std::this_thread::get_id()));
}

TEST(Loader, AFailureToReadSurfacesWithItsOwnBatchAndStays) {
  const auto read = [](std::int64_t record) {
    if (record == 9) throw Error(ErrorKind::data, "checksum differs", "shard-00000.h5", "copy it again");
    return picture_of(record);
  };
  ImageLoader loader({.workers = 2}, crops(), sampler(4, false), source_of(read), make_host_memory());
  EXPECT_EQ(loader.next().records, (std::vector<std::int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(loader.next().records, (std::vector<std::int64_t>{4, 5, 6, 7}));
  for (int again = 0; again < 3; ++again)
    EXPECT_TRUE(
        mentions(error_of(ErrorKind::data, [&] { loader.next(); }), {"checksum differs", "shard-00000.h5"}));
}

TEST(Loader, AFailureToDecodeNamesTheFirstRecordConcerned) {
  const auto read = [](std::int64_t record) {
    EncodedPicture picture = picture_of(record);
    if (record >= 5) picture.codec = Codec::png;  // 5, 6 and 7 are all broken
    return picture;
  };
  for (const int workers : {1, 4}) {
    ImageLoader loader({.workers = workers}, crops(), sampler(4, false), source_of(read), make_host_memory());
    loader.next();
    EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { loader.next(); }), {"record 5"}));
  }
}

TEST(Loader, RefusesPicturesWithOtherChannels) {
  MultiCropOptions options = crops();
  options.mean = options.std = {0.5f, 0.5f, 0.5f};
  ImageLoader loader({}, options, sampler(4, false), source_of(), make_host_memory());
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, [&] { loader.next(); }), {"record 0", "1 channels", "3 entries"}));
}

TEST(Loader, RefusesABatchThatDoesNotDivideAndListsWhatDoes) {
  const auto make = [](const LoaderOptions& options) {
    ImageLoader(options, crops(), sampler(30), source_of(), make_host_memory());
  };
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [&] { make({.accumulate = 4, .data_size = 2}); }),
                       {"data.batch_size is 30", "8 equal shares", "24 or 32", "accumulate 1, 3, 5, 15"}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::usage, [&] { make({.data_size = 31}); }), {"choose data.batch_size 31"}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::usage, [&] { make({.accumulate = 0}); }), {"parallel.accumulate is 0"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [&] { make({.workers = 0}); }), {"data.workers is 0"}));
}

// Twenty pictures are queued at 50 ms each; to leave takes the one in hand. Two seconds leave room for a busy
// machine.
TEST(Loader, StopsWithoutFinishingWhatItHasBegun) {
  std::atomic<int> reads = 0;
  const auto slow = [&](std::int64_t record) {
    ++reads;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return picture_of(record);
  };
  const auto start = std::chrono::steady_clock::now();
  {
    ImageLoader loader({.workers = 2}, crops(), sampler(53), source_of(slow), make_host_memory());
    EXPECT_TRUE(eventually([&] { return reads > 0; }));
  }
  EXPECT_LT(reads, 40);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

TEST(Loader, BatchesOutliveTheLoader) {
  ImageBatch batch;
  std::vector<float> before;
  {
    ImageLoader loader({.workers = 2}, crops(), sampler(4), source_of(), make_host_memory());
    batch = loader.next();
    before = pixels_of(batch, 3);
    for (int i = 0; i < 5; ++i) loader.next();  // must not be put over the batch still held
  }
  EXPECT_EQ(pixels_of(batch, 3), before);
}

TEST(Loader, TellsHowLongItWasWaitedFor) {
  const auto slow = [](std::int64_t record) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return picture_of(record);
  };
  ImageLoader loader({.parts_ahead = 1}, crops(), sampler(4), source_of(slow), make_host_memory());
  for (int i = 0; i < 5; ++i) loader.next();
  const LoaderStatistics statistics = loader.statistics();
  // Twenty reads of 10 ms, none of them begun before the batch ahead was taken: 0.2 s, less what this thread
  // slept.
  EXPECT_GE(statistics.wait_seconds, 0.05);
  EXPECT_GE(statistics.pictures, 20);
  EXPECT_GT(statistics.work_seconds, 0);
}

TEST(Loader, RateIsPositiveAndLimitedByTheSource) {
  const auto slow = [](std::int64_t record) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return picture_of(record);
  };
  ImageLoader loader({}, crops(), sampler(4), source_of(slow), make_host_memory());
  const LoaderRate rate = measure_loader(loader, 0.1);
  EXPECT_GT(rate.pictures_per_second, 0);
  // One read takes at least 1 ms, so no more than 1,000 pictures a second are read; up to three parts read
  // before the clock was started may be cropped after it: 12 pictures in 0.1 s.
  EXPECT_LE(rate.pictures_per_second, 1000 + 120);
  EXPECT_GT(rate.microseconds_per_picture, 0);
}

}  // namespace
}  // namespace bireme
