#include "core/data/token_dataset.h"

#include <gtest/gtest.h>

#include <set>

#include "core/data/token_loader.h"
#include "core/data/token_writer.h"
#include "core/io/hdf5.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;
using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kShardSize = 10;

/// Documents of 4, 6, 1, 23 and 5 tokens in shards of 10: one ends with a shard, one reaches over three. The
/// tokens count on from document to document: 0, 1, 2 …
const std::vector<std::int64_t> kLengths{4, 6, 1, 23, 5};
constexpr std::int64_t kTokens = 39;
const std::set<std::int64_t> kStarts{0, 4, 10, 11, 34};

class TokenDatasets : public testing::Test {
 protected:
  TokenDatasets() { write(257); }

  void write(std::int64_t vocabulary, std::int32_t first = 0) const {
    TokenWriter writer({.output = path_,
                        .split = "train",
                        .shard_size = kShardSize,
                        .vocabulary = vocabulary,
                        .document_end = 256,
                        .tokenizer = open_tokenizer("byte"),
                        .replace = true});
    for (const std::int64_t length : kLengths) {
      Ids document;
      for (std::int64_t i = 0; i < length; ++i) document.push_back(first++);
      writer.append(document);
      writer.end_document();
      writer.end_document();  // nothing came in between: no document
    }
    writer.finish();
  }
  std::string open_error() const {
    return error_of(ErrorKind::data, [&] { TokenDataset::open(path_).read(0, kTokens); });
  }
  void edit_manifest(const std::string& from, const std::string& to) const {
    std::string json = folder_.read("set/dataset.json");
    ASSERT_NE(json.find(from), std::string::npos) << json;
    folder_.write("set/dataset.json", json.replace(json.find(from), from.size(), to));
  }
  static Sampler sampler(const TokenWindows& windows, std::int64_t batch, bool shuffled = true) {
    return Sampler(
        {.records = count_windows(kTokens, windows), .batch_size = batch, .seed = 3, .shuffled = shuffled});
  }

  test::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "set";
};

TEST_F(TokenDatasets, GiveBackEveryStretchOfTheStream) {
  const TokenDataset dataset = TokenDataset::open(path_);
  EXPECT_EQ(dataset.tokens(), kTokens);
  EXPECT_EQ(dataset.documents(), 5);
  EXPECT_EQ(dataset.manifest().shards.size(), 4u);
  EXPECT_EQ(dataset.manifest().document_end, 256);
  for (std::int64_t begin = 0; begin <= kTokens; ++begin)
    for (std::int64_t count = 0; begin + count <= kTokens; ++count) {
      const TokenRun run = dataset.read(begin, count);
      Ids expected;
      std::vector<std::int64_t> starts;
      for (std::int64_t i = begin; i < begin + count; ++i) {
        expected.push_back(static_cast<std::int32_t>(i));
        if (kStarts.contains(i)) starts.push_back(i - begin);
      }
      ASSERT_EQ(run.tokens, expected);
      ASSERT_EQ(run.starts, starts) << begin << " + " << count;
    }
  EXPECT_THROW(dataset.read(30, 10), Error);
  EXPECT_THROW(dataset.read(-1, 2), Error);
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < 5; ++i) {
    const TokenDataset::Range range = dataset.document(i);
    EXPECT_EQ(range.begin, begin);
    EXPECT_EQ(range.end, begin += kLengths[static_cast<std::size_t>(i)]);
  }
  EXPECT_THROW(dataset.document(5), Error);
  EXPECT_TRUE(dataset.verify().empty());
  EXPECT_EQ(dataset.tokenizer()->kind(), "byte");
  EXPECT_TRUE(mentions(describe(dataset), {"39 in 4 shards", "257 ids, document end 256", "byte"}));
}

TEST_F(TokenDatasets, StoreTwoBytesATokenWhereTheVocabularyFits) {
  const auto memory = make_host_memory();
  EXPECT_EQ(Hdf5Reader(path_ / "shard-00000.h5").dtype("tokens"), DType::i32) << "u16 reads as i32";
  write((1 << 16) + 100, 65500);
  EXPECT_EQ(Hdf5Reader(path_ / "shard-00000.h5").dtype("tokens"), DType::i64) << "u32 reads as i64";
  EXPECT_EQ(TokenDataset::open(path_).read(30, 2).tokens, (Ids{65530, 65531}));
  write(1 << 16, 65490);
  EXPECT_EQ(TokenDataset::open(path_).read(30, 2).tokens, (Ids{65520, 65521}));
}

TEST_F(TokenDatasets, RefuseTokensBeyondTheVocabulary) {
  TokenWriter writer({.output = folder_.path() / "other", .vocabulary = 10});
  writer.append(Ids{1, 2});
  EXPECT_TRUE(mentions(error_of(ErrorKind::data,
                                [&] {
                                  writer.append(Ids{3, 10});
                                }),
                       {"token 3 is 10", "of 10"}));
  EXPECT_THROW(writer.append(Ids{-1}), Error);
  edit_manifest("\"vocabulary\": 257", "\"vocabulary\": 30");
  edit_manifest("\"document_end\": 256", "\"document_end\": 3");
  EXPECT_TRUE(mentions(open_error(), {"shard-00003.h5", "token 30 of the dataset is 30"}));
}

TEST_F(TokenDatasets, RefuseAFolderThatIsNotWhole) {
  const std::string good = folder_.read("set/shard-00001.h5"), manifest = folder_.read("set/dataset.json");
  for (std::size_t i = 0; i < good.size(); i += 97) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 4);
    folder_.write("set/shard-00001.h5", bad);
    EXPECT_TRUE(mentions(open_error(), {"shard-00001.h5"})) << "byte " << i;
  }
  folder_.write("set/shard-00001.h5", folder_.read("set/shard-00002.h5"));
  EXPECT_TRUE(mentions(open_error(), {"shard-00001.h5"}));
  folder_.write("set/shard-00001.h5", good);
  folder_.write("set/shard-00009.h5", good);
  EXPECT_TRUE(mentions(open_error(), {"shard-00009.h5", "not listed"}));
  std::filesystem::remove(path_ / "shard-00009.h5");
  const auto refused = [&](const std::string& from, const std::string& to, const std::string& what) {
    edit_manifest(from, to);
    EXPECT_TRUE(mentions(open_error(), {what}));
    folder_.write("set/dataset.json", manifest);
  };
  refused("\"tokens\": 39", "\"tokens\": 40", "39 tokens together");
  refused("\"records\": 5", "\"records\": 6", "5 records together");
  refused("\"vocabulary\": 257", "\"vocabulary\": 0", "`vocabulary` is 0");
  refused("\"document_end\": 256", "\"document_end\": 257", "document_end");
  refused("\"kind\": \"tokens\"", "\"kind\": \"images\"", "holds images, not tokens");
  refused("\"kind\": \"tokens\"", "\"kind\": 3", "`kind`");
  EXPECT_TRUE(TokenDataset::open(path_).verify().empty());
  folder_.write("set/tokenizer/byte_tokenizer.json", "");
  std::filesystem::remove(path_ / "tokenizer/byte_tokenizer.json");
  EXPECT_TRUE(mentions(TokenDataset::open(path_).verify().at(0), {"tokenizer"}));
}

TEST_F(TokenDatasets, LeaveNothingBehindWithoutATokenOrOverAnother) {
  const std::filesystem::path other = folder_.path() / "other";
  {
    TokenWriter writer({.output = other, .vocabulary = 10});
    EXPECT_THROW(writer.finish(), Error);
  }
  EXPECT_FALSE(std::filesystem::exists(other));
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [&] { TokenWriter({.output = path_, .vocabulary = 10}); }),
                       {"holds a dataset already", "--force"}));
}

// Windows of 4 over 39 tokens: records 0 … 8, whose last target is token 36.
TEST_F(TokenDatasets, WindowsReadEachTokenOnceAndPredictTheNext) {
  const TokenDataset dataset = TokenDataset::open(path_);
  const auto memory = make_host_memory();
  const TokenWindows windows{.length = 4};
  EXPECT_EQ(count_windows(kTokens, windows), 9);
  EXPECT_EQ(count_windows(5, windows), 1);
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::usage, [&] { count_windows(4, windows); }), {"4 tokens", "at most 3"}));
  const TokenBatch batch = read_windows(dataset, std::vector<std::int64_t>{8, 2}, windows, *memory);
  EXPECT_EQ(batch.tokens.shape(), (Shape{2, 4}));
  const auto tokens = batch.tokens.values<std::int32_t>(), targets = batch.targets.values<std::int32_t>();
  EXPECT_EQ(Ids(tokens.begin(), tokens.end()), (Ids{32, 33, 34, 35, 8, 9, 10, 11}));
  EXPECT_EQ(Ids(targets.begin(), targets.end()), (Ids{33, 34, 35, 36, 9, 10, 11, 12}));
  EXPECT_FALSE(batch.starts.defined());
}

// Documents begin at tokens 0, 4, 10, 11 and 34: token 10 is a document of its own.
TEST_F(TokenDatasets, DocumentsApartAreMarkedAndTheirFirstTokenIsNoTarget) {
  const TokenDataset dataset = TokenDataset::open(path_);
  const auto memory = make_host_memory();
  const TokenBatch batch = read_windows(dataset, std::vector<std::int64_t>{0, 2, 5, 6},
                                        {.length = 5, .documents_apart = true}, *memory);
  const auto targets = batch.targets.values<std::int32_t>();
  EXPECT_EQ(Ids(targets.begin(), targets.end()), (Ids{1,  2,  3,  -1, 5,  -1, 12, 13, 14, 15,  //
                                                      26, 27, 28, 29, 30, 31, 32, 33, -1, 35}));
  const auto starts = batch.starts.values<std::uint8_t>();
  EXPECT_EQ(std::vector<int>(starts.begin(), starts.end()),
            (std::vector<int>{1, 0, 0, 0, 1, 1, 1, 0, 0, 0,  //
                              1, 0, 0, 0, 0, 1, 0, 0, 0, 1}));
}

struct DeliveredTokens {
  std::int64_t record;
  std::uint64_t epoch;
  Ids tokens, targets;
  friend bool operator==(const DeliveredTokens&, const DeliveredTokens&) = default;
};

/// Everything that `steps` steps deliver over all ranks, in the order of the global batch.
std::vector<DeliveredTokens> deliver(const TokenDataset& dataset, const Sampler& sampler,
                                     TokenLoaderOptions options, std::int64_t steps) {
  std::vector<std::unique_ptr<TokenLoader>> ranks;
  for (options.data_rank = 0; options.data_rank < options.data_size; ++options.data_rank)
    ranks.push_back(std::make_unique<TokenLoader>(options, sampler, dataset, make_host_memory()));
  std::vector<DeliveredTokens> all;
  const std::int64_t length = options.windows.length;
  for (std::int64_t part = 0; part < steps * options.accumulate; ++part)
    for (const auto& rank : ranks) {
      EXPECT_EQ(rank->step(), options.start_step + part / options.accumulate);
      const TokenBatch batch = rank->next();
      EXPECT_EQ(batch.global_count, sampler.batch_size());
      for (std::int64_t i = 0; i < std::ssize(batch.records); ++i) {
        const std::int32_t* tokens = batch.tokens.data<std::int32_t>() + i * length;
        const std::int32_t* targets = batch.targets.data<std::int32_t>() + i * length;
        all.push_back({batch.records[static_cast<std::size_t>(i)], batch.epoch, Ids(tokens, tokens + length),
                       Ids(targets, targets + length)});
      }
    }
  return all;
}

TEST_F(TokenDatasets, LoadersDeliverTheSameForAnyNumberOfRanksAndPartsAndFromAnyStep) {
  const TokenDataset dataset = TokenDataset::open(path_);
  const TokenWindows windows{.length = 2, .documents_apart = true};  // 19 records, 3 steps an epoch
  const std::vector<DeliveredTokens> expected =
      deliver(dataset, sampler(windows, 6), {.windows = windows}, 8);
  ASSERT_EQ(expected.size(), 48u);
  for (std::int64_t i = 0; i < 48; ++i) {
    const DeliveredTokens& one = expected[static_cast<std::size_t>(i)];
    EXPECT_EQ(one.epoch, static_cast<std::uint64_t>(i / 18));
    EXPECT_EQ(one.record, sampler(windows, 6).record(one.epoch, i % 18));
    EXPECT_EQ(one.tokens.front(), one.record * 2);
  }
  for (const auto& [ranks, parts] : {std::pair{2, 1}, {3, 2}, {1, 3}, {6, 1}})
    EXPECT_EQ(deliver(dataset, sampler(windows, 6),
                      {.windows = windows, .accumulate = parts, .data_size = ranks}, 8),
              expected)
        << ranks << " ranks, " << parts << " parts";
  EXPECT_EQ(deliver(dataset, sampler(windows, 6), {.windows = windows, .start_step = 5, .data_size = 2}, 3),
            std::vector<DeliveredTokens>(expected.begin() + 30, expected.end()));
}

TEST_F(TokenDatasets, LoadersInOrderReadTheStreamAsItIs) {
  const TokenDataset dataset = TokenDataset::open(path_);
  const TokenWindows windows{.length = 4};
  std::int64_t next = 0;
  for (const DeliveredTokens& one : deliver(dataset, sampler(windows, 3, false), {.windows = windows}, 3))
    EXPECT_EQ(one.record, next++);
  EXPECT_EQ(next, 9);
}

TEST_F(TokenDatasets, LoadersThrowWhatReadingThrewEachTime) {
  const TokenWindows windows{.length = 4};
  edit_manifest("\"vocabulary\": 257", "\"vocabulary\": 20");
  edit_manifest("\"document_end\": 256", "\"document_end\": 3");
  const TokenDataset dataset = TokenDataset::open(path_);
  TokenLoader loader({.windows = windows}, sampler(windows, 3, false), dataset, make_host_memory());
  loader.next();
  for (int i = 0; i < 2; ++i)
    EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { loader.next(); }), {"token 20"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage,
                                [&] {
                                  TokenLoader({.windows = windows, .data_size = 2}, sampler(windows, 3),
                                              dataset, make_host_memory());
                                }),
                       {"data.batch_size is 3"}));
}

}  // namespace
}  // namespace bireme
