#include "objectives/reference_cache.h"

#include <gtest/gtest.h>

#include "tests/support/answer_fixture.h"
#include "tests/support/expect_error.h"
#include "tests/support/ranks.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;

class References : public testing::Test {
 protected:
  ScoreReference scorer() {
    return [this](std::span<const AnswerRecord> records) {
      ++passes_;
      return score_answers(*fixture_.backend, fixture_.published->model(), records);
    };
  }
  ReferenceIdentity identity(bool has_mismatched = false) const {
    return identity_of(pairs_, "the hash of a model", DType::f32, has_mismatched);
  }
  ReferenceCache prepare(const ReferenceIdentity& identity, const ReferenceCache::Options& options) {
    return ReferenceCache::prepare(pairs_, identity, *fixture_.single, scorer(), options);
  }
  /// What a test without a cache would compute.
  double expected(std::int64_t record, std::size_t answer) const {
    const std::vector<AnswerRecord> one{pairs_.read(record)};
    return score_answers(*fixture_.backend, fixture_.published->model(), one)[0][answer].log_probability;
  }

  test::AnswerFixture fixture_;
  AnswerDataset pairs_ = fixture_.prepare("set", AnswerKind::pairs, test::AnswerFixture::pairs(23));
  std::atomic<int> passes_ = 0;
};

TEST_F(References, HoldTheSumsOfEveryAnswer) {
  const ReferenceCache cache = prepare(identity(), {.shard_size = 5});
  ASSERT_EQ(cache.records(), 23);
  for (std::int64_t i = 0; i < cache.records(); ++i)
    for (int a = 0; a < 2; ++a) {
      const double sum = expected(i, static_cast<std::size_t>(a));
      EXPECT_NEAR(cache.sum(i, a), sum, 1e-5 * std::abs(sum)) << i << ", " << a;
    }
  EXPECT_EQ(cache.folder().parent_path(), pairs_.folder());
  EXPECT_TRUE(cache.folder().filename().string().starts_with("reference-"));
  const int passes = passes_;
  EXPECT_EQ(prepare(identity(), {}).sums(), cache.sums());
  EXPECT_EQ(passes_, passes) << "a whole cache is not computed again";
  EXPECT_NO_THROW(AnswerDataset::open(pairs_.folder(), {AnswerKind::pairs})) << "the dataset is as it was";
}

TEST_F(References, GoOnWithTheShardsThatAnInterruptedPassLeft) {
  const ReferenceCache cache = prepare(identity(), {.shard_size = 5});
  const int whole = passes_;
  std::filesystem::remove(cache.folder() / "reference.json");
  std::filesystem::remove(cache.folder() / "shard-00003.h5");
  passes_ = 0;
  EXPECT_EQ(prepare(identity(), {.shard_size = 5}).sums(), cache.sums());
  EXPECT_EQ(passes_, 1);
  EXPECT_EQ(whole, 5);
}

TEST_F(References, OfTextsWithTheAnswerOfTheRecordBefore) {
  const ReferenceCache cache = prepare(identity(true), {.shard_size = 10});
  ASSERT_EQ(cache.mismatched_sums().size(), 23u);
  EXPECT_EQ(cache.mismatched_records()[0], 22);
  EXPECT_EQ(cache.mismatched_records()[7], 6);
  AnswerRecord record = pairs_.read(7);
  record.answers = {pairs_.read(6).answers[0]};
  const std::vector<AnswerRecord> one{record};
  const double sum = score_answers(*fixture_.backend, fixture_.published->model(), one)[0][0].log_probability;
  EXPECT_NEAR(cache.mismatched_sums()[7], sum, 1e-5 * std::abs(sum));
}

TEST_F(References, AreTheSameWhateverTheNumberOfRanks) {
  const ReferenceCache one = prepare(identity(), {.folder = fixture_.folder.path() / "one", .shard_size = 4});
  std::vector<double> sums;
  test::run_on_ranks(3, [&](Communicator& ranks) {
    test::AnswerFixture own;  // a model of its own for each rank, with the same weights
    const ReferenceCache cache =
        ReferenceCache::prepare(pairs_, identity(), ranks,
                                [&](std::span<const AnswerRecord> records) {
                                  return score_answers(*own.backend, own.published->model(), records);
                                },
                                {.folder = fixture_.folder.path() / "three", .shard_size = 4});
    if (ranks.rank() == 2) sums = cache.sums();
  });
  EXPECT_EQ(sums, one.sums());
}

TEST_F(References, OfSomethingElseAreRefusedByTheNameOfTheField) {
  const std::filesystem::path folder = fixture_.folder.path() / "cache";
  prepare(identity(), {.folder = folder});
  const auto refused = [&](const ReferenceIdentity& wanted, const std::string& field) {
    const std::string message = error_of(ErrorKind::data, [&] { prepare(wanted, {.folder = folder}); });
    EXPECT_TRUE(mentions(message, {"`" + field + "`", "cache", "bireme prepare reference", "--force"}));
    EXPECT_THROW(ReferenceCache::open(pairs_, wanted, folder), Error);
  };
  ReferenceIdentity other = identity();
  other.model = "another";
  refused(other, "model_sha256");
  other = identity();
  other.precision = "bf16";
  refused(other, "precision");
  refused(identity(true), "mismatched");
  other = identity();
  other.dataset = "another";
  refused(other, "dataset_sha256");
  other = identity();
  other.max_length = 7;
  refused(other, "max_length");
  // A shard of an interrupted pass over another model is not taken for this one's.
  std::filesystem::remove(folder / "reference.json");
  other = identity();
  other.model = "another";
  refused(other, "model_sha256");
  EXPECT_NO_THROW(prepare(other, {.folder = folder, .replace = true}));
}

TEST_F(References, DamageIsNamed) {
  const ReferenceCache cache = prepare(identity(), {.shard_size = 10});
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { ReferenceCache::open(pairs_, identity(true)); }),
                       {"no whole reference cache", "bireme prepare reference"}));
  const std::filesystem::path shard = cache.folder() / "shard-00001.h5";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data, [&] { ReferenceCache::open(pairs_, identity()); }),
                       {"shard-00001.h5", "checksum"}));
}

TEST(HashOfModel, ChangesWithAnyWeight) {
  const test::AnswerFixture fixture;
  const std::string first = hash_of_model(fixture.exported("a"));
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(hash_of_model(fixture.exported("b")), first);
  float* weights = fixture.published->model().parameters()[0].value().data<float>();
  weights[1] += 1;
  EXPECT_NE(hash_of_model(fixture.exported("c")), first);
}

}  // namespace
}  // namespace bireme
