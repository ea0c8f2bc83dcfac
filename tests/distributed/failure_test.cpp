#include "distributed/failure.h"

#include <gtest/gtest.h>

#include <atomic>

#include "tests/support/ranks.h"

namespace bireme {
namespace {

TEST(AgreeOnError, EveryRankLearnsOfTheLowestRanksError) {
  test::run_on_ranks(3, [](Communicator& world) {
    EXPECT_FALSE(agree_on_error(world, std::nullopt));
    std::optional<Error> own;
    if (world.rank() > 0) own = Error(ErrorKind::data, "torn", "shard " + std::to_string(world.rank()), "");
    const auto agreed = agree_on_error(world, own);
    ASSERT_TRUE(agreed);
    EXPECT_EQ(agreed->rank, 1);
    EXPECT_EQ(agreed->error.kind(), ErrorKind::data);
    EXPECT_EQ(agreed->error.problem(), "torn");
    EXPECT_EQ(agreed->error.where(), "shard 1");
    EXPECT_EQ(agreed->error.remedy(), "");
  });
}

TEST(AbortAll, EndsWithTheCodeOfTheError) {
  test::RankProcesses ranks(2, [](Communicator& world) {
    if (world.rank() == 1) abort_all(&world, Error(ErrorKind::data, "torn", "", ""));
    world.barrier();
    return 0;
  });
  EXPECT_EQ(ranks.wait(1), 3);
  EXPECT_EQ(ranks.wait(0), 7);
}

TEST(ClaimReport, OneRankOfAHostReports) {
  std::atomic<int> reports{0};
  test::run_on_ranks(4, [&](Communicator& world) {
    if (claim_report(&world)) ++reports;
  });
  EXPECT_EQ(reports, 1);
  EXPECT_TRUE(claim_report(nullptr));
}

}  // namespace
}  // namespace bireme
