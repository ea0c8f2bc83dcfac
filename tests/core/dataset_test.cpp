#include "core/data/dataset.h"

#include <gtest/gtest.h>

#include "core/data/writer.h"
#include "core/io/hdf5.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;

constexpr std::int64_t kDatasetRecords = 25, kShardSize = 10;

/// Ten, ten and five grey pictures of 6 x 4 pixels; picture i has the value i in every pixel and label i
/// mod 3.
class Datasets : public testing::Test {
 protected:
  Datasets() {
    DatasetWriter writer(
        {.output = path_, .split = "train", .classes = {"a", "b", "c"}, .shard_size = kShardSize});
    for (int i = 0; i < kDatasetRecords; ++i)
      writer.append({.codec = Codec::raw,
                     .bytes = std::vector<std::uint8_t>(24, static_cast<std::uint8_t>(i)),
                     .height = 4,
                     .width = 6,
                     .channels = 1,
                     .label = i % 3});
    writer.finish({0.5}, {0.25});
  }

  std::string shard(int number) const { return "set/shard-0000" + std::to_string(number) + ".h5"; }
  /// The message of opening, or of reading record 13, which lies in shard 1.
  std::string open_error() const {
    return error_of(ErrorKind::data, [&] { Dataset::open(path_); });
  }
  std::string read_error() const {
    const Dataset dataset = Dataset::open(path_);
    return error_of(ErrorKind::data, [&] { dataset.read(13); });
  }
  void edit_manifest(const std::string& from, const std::string& to) const {
    std::string json = folder_.read("set/dataset.json");
    ASSERT_NE(json.find(from), std::string::npos) << json;
    folder_.write("set/dataset.json", json.replace(json.find(from), from.size(), to));
  }

  test::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "set";
};

TEST_F(Datasets, GiveBackEveryRecord) {
  const Dataset dataset = Dataset::open(path_);
  EXPECT_EQ(dataset.records(), kDatasetRecords);
  EXPECT_EQ(dataset.manifest().shards.size(), 3u);
  EXPECT_EQ(dataset.manifest().width, 6);
  EXPECT_EQ(dataset.manifest().height, 4);
  EXPECT_EQ(dataset.manifest().channels, 1);
  EXPECT_EQ(dataset.manifest().classes, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(dataset.manifest().pixel_mean, std::vector<double>{0.5});
  const std::vector<std::int32_t> labels = dataset.labels();
  for (std::int64_t i = kDatasetRecords; i-- > 0;) {
    const EncodedPicture picture = dataset.read(i);
    EXPECT_EQ(picture.bytes, std::vector<std::uint8_t>(24, static_cast<std::uint8_t>(i)));
    EXPECT_EQ(picture.height, 4);
    EXPECT_EQ(picture.width, 6);
    EXPECT_EQ(picture.label, i % 3);
    EXPECT_EQ(labels.at(i), i % 3);
  }
  const std::vector<std::int64_t> wanted{24, 0, 11, 0};
  const std::vector<EncodedPicture> many = dataset.read_many(wanted);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(many[i].bytes[0], wanted[i]);
  EXPECT_TRUE(dataset.verify().empty());
  EXPECT_TRUE(mentions(describe(dataset), {"25 in 3 shards", "6 x 4 pixels, grey", "3: a, b, c"}));
}

TEST_F(Datasets, RefuseRecordsThatTheyDoNotHave) {
  const Dataset dataset = Dataset::open(path_);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { dataset.read(kDatasetRecords); }),
                       {"no record 25", "has 25"}));
  EXPECT_THROW(dataset.read(-1), Error);
}

TEST_F(Datasets, FingerprintChangesWithAnyRecord) {
  const std::string before = Dataset::open(path_).fingerprint();
  EXPECT_EQ(Dataset::open(path_).fingerprint(), before);
  DatasetWriter writer(
      {.output = path_, .classes = {"a", "b", "c"}, .shard_size = kShardSize, .replace = true});
  for (int i = 0; i < kDatasetRecords; ++i)
    writer.append({.codec = Codec::raw,
                   .bytes = std::vector<std::uint8_t>(24, static_cast<std::uint8_t>(i == 17 ? 99 : i)),
                   .height = 4,
                   .width = 6,
                   .channels = 1,
                   .label = i % 3});
  writer.finish({0.5}, {0.25});
  EXPECT_NE(Dataset::open(path_).fingerprint(), before);
}

TEST_F(Datasets, AFlippedBitAnywhereInAShardIsFoundBeforeItIsTrusted) {
  const std::string good = folder_.read(shard(1));
  for (std::size_t i = 0; i < good.size(); i += 61) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    folder_.write(shard(1), bad);
    const std::string message = error_of(ErrorKind::data, [&] { Dataset::open(path_).read(13); });
    EXPECT_TRUE(mentions(message, {"shard-00001.h5"})) << "byte " << i;
  }
  // The records are checked by the file's own checksum, the rest by the manifest's.
  std::string bad = good;
  bad[good.size() - 1] = static_cast<char>(bad[good.size() - 1] ^ 1);
  folder_.write(shard(1), bad);
  EXPECT_EQ(Dataset::open(path_).read(3).bytes[0], 3) << "other shards are not affected";
  const std::vector<std::string> damaged = Dataset::open(path_).verify();
  ASSERT_EQ(damaged.size(), 1u);
  EXPECT_TRUE(mentions(damaged[0], {"shard-00001.h5", "checksum is", "the manifest says"}));
  EXPECT_TRUE(mentions(read_error(), {"checksum is", "copy the shard again", "bireme prepare"}));
}

TEST_F(Datasets, ShardsThatAreNotWhatTheManifestSaysAreRefusedAtOnce) {
  const std::string good = folder_.read(shard(1));
  folder_.write(shard(1), good.substr(0, good.size() / 2));
  EXPECT_TRUE(mentions(open_error(), {"shard-00001.h5", "bytes, the manifest says"}));
  std::filesystem::remove(folder_.path() / shard(1));
  EXPECT_TRUE(mentions(open_error(), {"shard-00001.h5", "cannot be read"}));
  // Shards 0 and 1 have the same number of records and bytes, so only what they say of themselves tells them
  // apart.
  folder_.write(shard(1), folder_.read(shard(0)));
  EXPECT_TRUE(mentions(open_error(), {"shard-00001.h5", "copied over another"}));
  folder_.write(shard(1), good);
  folder_.write(shard(3), good);
  EXPECT_TRUE(mentions(open_error(), {"shard-00003.h5", "not listed"}));
}

TEST_F(Datasets, AManifestThatContradictsItselfIsRefused) {
  const std::string good = folder_.read("set/dataset.json");
  const auto refused = [&](const std::string& from, const std::string& to, const std::string& reason) {
    edit_manifest(from, to);
    EXPECT_TRUE(mentions(open_error(), {"dataset.json", reason}));
    folder_.write("set/dataset.json", good);
  };
  refused("\"records\": 25", "\"records\": 26", "25 records together, `records` is 26");
  refused("\"shard-00001.h5\"", "\"shard-00000.h5\"", "listed twice");
  refused("\"shard-00001.h5\"", "\"../shard-00001.h5\"", "not a plain file name");
  refused("\"records\": 25", "\"records\": -1", "`records` is not a count");
  refused("\"version\": 1", "\"version\": 2", "version 2, this program reads 1");
  refused("\"classes\"", "\"klasses\"", "`classes` is missing");
  refused("\"channels\": 1", "\"channels\": 2", "neither 1 nor 3");
  refused("\"kind\": \"images\"", "\"kind\": \"text\"", "bireme prepare images");
  refused("{", "[", "JSON");
}

TEST_F(Datasets, AFolderThatIsNoDatasetSaysSo) {
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { Dataset::open(folder_.path()); }),
                       {"no dataset.json", "bireme prepare images"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { Dataset::open(folder_.path() / "none"); }),
                       {"no such dataset"}));
}

/// A shard made with care to pass its checksum is still not believed.
TEST_F(Datasets, RecordsOfAForgedShardAreChecked) {
  const auto memory = make_host_memory();
  const auto forge = [&](std::int32_t width, std::int64_t second_offset, std::uint8_t codec,
                         std::int32_t label) {
    const auto list = [&]<class T>(const Shape& shape, std::initializer_list<T> values) {
      Tensor tensor(*memory, shape, TypeOf<T>::value);
      std::copy(values.begin(), values.end(), tensor.data<T>());
      return tensor;
    };
    const std::filesystem::path file = path_ / "shard-00002.h5";
    Hdf5Writer writer(file);
    const std::vector<std::uint8_t> bytes(120);
    writer.create("bytes", DType::u8, {120}, 120);
    writer.write_bytes("bytes", 0, bytes.data(), 120);
    writer.write("offsets", list({6}, {std::int64_t{0}, second_offset, std::int64_t{48}, std::int64_t{72},
                                       std::int64_t{96}, std::int64_t{120}}));
    writer.write("sizes", list({5, 3}, {4, width, 1, 4, 6, 1, 4, 6, 1, 4, 6, 1, 4, 6, 1}));
    writer.write("codec",
                 list({5}, {codec, std::uint8_t{0}, std::uint8_t{0}, std::uint8_t{0}, std::uint8_t{0}}));
    writer.write("labels", list({5}, {label, 0, 0, 0, 0}));
    writer.attribute("", "records", std::int64_t{5});
    writer.attribute("", "first_record", std::int64_t{20});
    writer.close();
    ImageManifest manifest = parse_image_manifest(folder_.read("set/dataset.json"), "");
    manifest.shards[2].bytes = static_cast<std::int64_t>(std::filesystem::file_size(file));
    manifest.shards[2].checksum = checksum_file(file);
    folder_.write("set/dataset.json", to_json(manifest));
  };
  const auto read = [&] { return Dataset::open(path_).read(20); };
  forge(6, 24, 0, 2);
  EXPECT_EQ(read().bytes.size(), 24u);
  forge(7, 24, 0, 2);
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data, read), {"record 20", "bytes of its size", "shard-00002.h5"}));
  forge(6, 1 << 30, 0, 2);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, read), {"record 20"}));
  forge(6, -5, 0, 2);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, read), {"record 20", "no bytes"}));
  forge(1 << 30, 24, 1, 2);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, read), {"record 20", "impossible size"}));
  forge(6, 24, 3, 2);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, read), {"record 20", "unknown codec"}));
  forge(6, 24, 0, 3);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, read), {"record 20", "label beyond the classes"}));
}

}  // namespace
}  // namespace bireme
