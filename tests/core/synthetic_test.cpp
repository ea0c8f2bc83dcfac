#include "core/data/synthetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/data/token_dataset.h"
#include "core/data/token_loader.h"
#include "core/data/token_writer.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;

TEST(Parity, AnswersBehindTheLastBitWhetherTheOnesAreEven) {
  const SyntheticOptions options{.task = SyntheticTask::parity, .length = 12, .shortest = 3, .seed = 5};
  std::map<std::size_t, int> lengths, answers;
  for (std::int64_t i = 0; i < 4000; ++i) {
    const SyntheticSequence sequence = make_sequence(options, i);
    ASSERT_EQ(sequence.tokens.size(), 12U);
    ASSERT_EQ(std::count(sequence.targets.begin(), sequence.targets.end(), 1), 1);
    const auto bits = static_cast<std::size_t>(
        std::find(sequence.targets.begin(), sequence.targets.end(), 1) - sequence.targets.begin());
    int ones = 0;
    for (std::size_t t = 0; t < bits; ++t) {
      ASSERT_TRUE(sequence.tokens[t] == 1 || sequence.tokens[t] == 2);
      ones += sequence.tokens[t] == 2;
    }
    ASSERT_EQ(sequence.tokens[bits], ones % 2 == 0 ? 1 : 2) << "sequence " << i;
    for (std::size_t t = bits + 1; t < 12; ++t) ASSERT_EQ(sequence.tokens[t], 0);
    ++lengths[bits + 1];
    ++answers[static_cast<std::size_t>(sequence.tokens[bits])];
  }
  EXPECT_EQ(lengths.size(), 10U);
  EXPECT_EQ(lengths.begin()->first, 3U);
  for (const auto& [length, count] : lengths) EXPECT_NEAR(count, 400, 80) << length;  // 4 deviations
  EXPECT_NEAR(answers[1], 2000, 130);
}

TEST(Recall, AsksForEachKeyOnceAndKnowsItsValue) {
  const SyntheticOptions options{
      .task = SyntheticTask::recall, .length = 40, .pairs = 5, .vocabulary = 20, .seed = 2};
  std::map<std::size_t, int> places;
  std::map<std::int32_t, int> values, firsts;
  for (std::int64_t i = 0; i < 3000; ++i) {
    const SyntheticSequence sequence = make_sequence(options, i);
    const std::vector<std::int32_t>& tokens = sequence.tokens;
    ASSERT_EQ(tokens.size(), 40U);
    std::map<std::int32_t, std::int32_t> known;
    for (std::size_t t = 0; t < 10; t += 2) {
      ASSERT_TRUE(tokens[t] >= 1 && tokens[t] < 10);
      ASSERT_TRUE(known.emplace(tokens[t], tokens[t + 1]).second) << "a key twice";
    }
    std::set<std::int32_t> asked;
    for (std::size_t t = 0; t < 40; ++t) {
      if (t % 2 == 1 || t >= 10) {
        ASSERT_TRUE(tokens[t] < 20 && (tokens[t] >= 10 || !sequence.targets[t]));
      }
      if (!sequence.targets[t]) continue;
      ASSERT_GT(t, 10U);
      ASSERT_EQ(tokens[t], known.at(tokens[t - 1]));
      if (asked.empty()) ++firsts[tokens[t - 1] == tokens[0]];
      ASSERT_TRUE(asked.insert(tokens[t - 1]).second) << "asked twice";
      ++places[t];
      ++values[tokens[t]];
    }
    ASSERT_EQ(asked.size(), 5U);
    for (std::size_t t = 10; t < 40; ++t)
      if (tokens[t] < 10) {
        ASSERT_TRUE(t < 39 && sequence.targets[t + 1]) << "filler is no key";
      }
  }
  EXPECT_EQ(places.size(), 29U) << "each place but the first behind the pairs";
  EXPECT_EQ(values.size(), 10U);
  EXPECT_NEAR(firsts[1], 600, 90) << "order of the queries is that of the pairs by chance only";
}

TEST(Synthetic, SequencesDependOnSeedAndNumberAlone) {
  for (const SyntheticTask task : {SyntheticTask::parity, SyntheticTask::recall}) {
    const SyntheticOptions options{.task = task, .length = 64, .seed = 1},
        other{.task = task, .length = 64, .seed = 2};
    EXPECT_EQ(make_sequence(options, 7).tokens, make_sequence(options, 7).tokens);
    EXPECT_NE(make_sequence(options, 7).tokens, make_sequence(options, 8).tokens);
    EXPECT_NE(make_sequence(options, 7).tokens, make_sequence(other, 7).tokens);
  }
}

TEST(Synthetic, RefusesWhatCannotBe) {
  const auto error = [](const SyntheticOptions& options) {
    return error_of(ErrorKind::usage, [&] { options.validate(); });
  };
  EXPECT_TRUE(mentions(error({.length = 1}), {"--length"}));
  EXPECT_TRUE(mentions(error({.length = 10, .shortest = 11}), {"--shortest"}));
  const SyntheticTask recall = SyntheticTask::recall;
  EXPECT_TRUE(mentions(error({.task = recall, .length = 64, .vocabulary = 63}), {"--vocab-size"}));
  EXPECT_TRUE(mentions(error({.task = recall, .length = 640, .pairs = 32}), {"--pairs", "31"}));
  EXPECT_TRUE(mentions(error({.task = recall, .length = 31}), {"--length", "at least 32"}));
  SyntheticOptions(SyntheticOptions{.task = recall, .length = 32}).validate();
  make_sequence({.task = recall, .length = 32}, 0);  // no filler is left
}

class SyntheticDatasets : public testing::Test {
 protected:
  SyntheticDatasets() {
    prepare_synthetic(
        {.synthetic = options_, .sequences = 9, .output = path_, .split = "test", .shard_size = 50});
  }
  const SyntheticOptions options_{.task = SyntheticTask::recall, .length = 20, .pairs = 3, .vocabulary = 12};
  test::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "set";
};

TEST_F(SyntheticDatasets, GiveBackTokensAndTargetsAcrossShards) {
  const TokenDataset dataset = TokenDataset::open(path_);
  EXPECT_EQ(dataset.manifest().shards.size(), 4U);
  EXPECT_EQ(dataset.manifest().sequence_length, 20);
  EXPECT_TRUE(dataset.manifest().marks_targets);
  EXPECT_EQ(dataset.documents(), 9);
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> targets;
  for (std::int64_t i = 0; i < 9; ++i) {
    const SyntheticSequence sequence = make_sequence(options_, i);
    tokens.insert(tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
    targets.insert(targets.end(), sequence.targets.begin(), sequence.targets.end());
  }
  for (const std::int64_t begin : {0, 13, 49, 50, 120}) {
    const TokenRun run = dataset.read(begin, 60);
    EXPECT_TRUE(std::equal(run.tokens.begin(), run.tokens.end(), tokens.begin() + begin));
    EXPECT_TRUE(std::equal(run.targets.begin(), run.targets.end(), targets.begin() + begin));
    EXPECT_EQ(run.targets.size(), 60U);
  }
  EXPECT_TRUE(mentions(describe(dataset), {"9, of 20.0 tokens", "only the tokens that are marked"}));
}

TEST_F(SyntheticDatasets, BatchesPredictTheMarkedTokensAlone) {
  const TokenDataset dataset = TokenDataset::open(path_);
  for (const bool apart : {false, true}) {
    const std::vector<std::int64_t> records{2, 0, 7};
    const TokenBatch batch =
        read_windows(dataset, records, {.length = 20, .documents_apart = apart}, *make_host_memory());
    for (std::size_t row = 0; row < 3; ++row) {
      const SyntheticSequence sequence = make_sequence(options_, records[row]);
      for (std::size_t t = 0; t < 20; ++t) {
        EXPECT_EQ(batch.tokens.data<std::int32_t>()[row * 20 + t], sequence.tokens[t]);
        const bool is_target = t < 19 && sequence.targets[t + 1] == 1;
        EXPECT_EQ(batch.targets.data<std::int32_t>()[row * 20 + t], is_target ? sequence.tokens[t + 1] : -1)
            << row << ", " << t;
      }
    }
  }
}

TEST_F(SyntheticDatasets, RefuseWindowsThatCutAcrossSequences) {
  const TokenManifest manifest = TokenDataset::open(path_).manifest();
  require_whole_sequences(manifest, 20, "data.sequence_length");
  require_whole_sequences({}, 19, "data.sequence_length");
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::usage, [&] { require_whole_sequences(manifest, 40, "data.sequence_length"); }),
      {"windows of 40", "sequences of 20", "data.sequence_length", "set it to 20"}));
}

TEST_F(SyntheticDatasets, RefuseAManifestThatDoesNotFitTheShards) {
  const std::string manifest = folder_.read("set/dataset.json");
  const auto error = [&](const std::string& from, const std::string& to) {
    std::string json = manifest;
    EXPECT_NE(json.find(from), std::string::npos) << json;
    folder_.write("set/dataset.json", json.replace(json.find(from), from.size(), to));
    return error_of(ErrorKind::data, [&] { TokenDataset::open(path_); });
  };
  EXPECT_TRUE(mentions(error("\"sequence_length\": 20", "\"sequence_length\": 10"), {"9 documents of 10"}));
  EXPECT_TRUE(mentions(error("\"marks_targets\": true", "\"marks_targets\": 1"), {"marks_targets"}));
  const std::filesystem::path plain = folder_.path() / "plain";
  TokenWriter writer({.output = plain, .vocabulary = 3});
  writer.append(std::vector<std::int32_t>{0, 1, 2});
  writer.finish();
  std::string json = folder_.read("plain/dataset.json");
  const std::string key = "\"tokens\": 3";
  folder_.write("plain/dataset.json", json.replace(json.find(key), 0, "\"marks_targets\": true, "));
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { TokenDataset::open(plain); }),
                       {"shard-00000.h5", "does not say which tokens are targets"}));
}

}  // namespace
}  // namespace bireme
