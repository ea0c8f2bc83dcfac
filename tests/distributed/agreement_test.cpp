#include "distributed/agreement.h"

#include <gtest/gtest.h>

#include <atomic>

#include "core/base/error.h"
#include "tests/support/ranks.h"

namespace bireme {
namespace {

TEST(Agreement, EveryRankGetsTheTextsOfAll) {
  test::run_on_ranks(3, [](Communicator& world) {
    const auto length = static_cast<std::size_t>(world.rank()) * 2;  // rank 0: an empty text
    EXPECT_EQ(gather_or_fail(world, [&] { return std::string(length, 'x'); }),
              (std::vector<std::string>{"", "xx", "xxxx"}));
    EXPECT_EQ(run_on_first(world, [&] { return "from rank " + std::to_string(world.rank()); }),
              "from rank 0");
  });
}

TEST(Agreement, OneFailureIsTheSameErrorOnEveryRank) {
  std::atomic<int> failed = 0;
  test::run_on_ranks(3, [&](Communicator& world) {
    try {
      (void)gather_or_fail(world, [&]() -> std::string {
        if (world.rank() == 0) return "done";
        throw Error(ErrorKind::checkpoint, "disk of " + std::to_string(world.rank()) + " is full", "/a",
                    "free space");
      });
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::checkpoint);
      EXPECT_STREQ(error.what(), "rank 1: disk of 1 is full: /a: free space");
      ++failed;
    }
    EXPECT_EQ(run_on_first(world, [] { return std::string("on"); }), "on");  // the group is still in step
  });
  EXPECT_EQ(failed, 3);
}

TEST(Agreement, OtherExceptionsArriveAsErrors) {
  const auto world = make_single_process();
  try {
    (void)run_on_first(*world, []() -> std::string { throw std::runtime_error("bad\xff path"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::other);
    EXPECT_NE(std::string(error.what()).find("path"), std::string::npos);
  }
}

}  // namespace
}  // namespace bireme
