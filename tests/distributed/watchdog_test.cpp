#include "distributed/watchdog.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tests/support/ranks.h"

namespace bireme {
namespace {

using test::RankProcesses;

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

WatchdogOptions with_timeout(double seconds) {
  return {.timeout_seconds = seconds,
          .report = [](const Error& error) { std::fprintf(stderr, "bireme: error: %s\n", error.what()); }};
}

TEST(Watchdog, NamesTheRankThatHasNotArrivedAndEndsWithSix) {
  RankProcesses ranks(3, [](Communicator& world) {
    const Watchdog watchdog(world, with_timeout(1));
    const auto memory = make_host_memory();
    const Tensor tensor(*memory, {1 << 18}, DType::f32);
    fill(tensor, 0);
    world.all_reduce(tensor, Reduce::sum).wait();
    if (world.rank() == 1) raise(SIGSTOP);
    world.all_reduce(tensor, Reduce::sum).wait();
    return 0;
  });
  // Whoever's timeout comes second may find the first gone before: lost instead of hanging.
  const int codes[] = {ranks.wait(0), ranks.wait(2)};
  EXPECT_TRUE(codes[0] == 6 || codes[1] == 6) << codes[0] << ' ' << codes[1];
  for (const int code : codes) EXPECT_TRUE(code == 6 || code == 7) << code;
  const std::string errors = ranks.errors();
  EXPECT_NE(errors.find("all_reduce of 1.0 MiB (fp32, sum) (collective 2 of its communicator)"),
            std::string::npos)
      << errors;
  EXPECT_NE(errors.find("not arrived: rank 1 (pid " + std::to_string(ranks.pid(1)) + ", stopped)"),
            std::string::npos)
      << errors;
}

TEST(Watchdog, WaitsForARankThatGivesSignsOfLife) {
  RankProcesses ranks(2, [](Communicator& world) {
    const Watchdog watchdog(world, with_timeout(0.5));
    for (int i = 0; world.rank() == 1 && i < 15; ++i) {  // three times the timeout
      sleep_seconds(0.1);
      world.beat();
    }
    world.barrier();
    return 0;
  });
  EXPECT_EQ(ranks.wait(0), 0) << ranks.errors();
  EXPECT_EQ(ranks.wait(1), 0) << ranks.errors();
}

TEST(Watchdog, StartsAgainAfterItWasSuspendedItself) {
  RankProcesses ranks(2, [](Communicator& world) {
    const Watchdog watchdog(world, with_timeout(1));
    world.barrier();
    if (world.rank() == 1)
      sleep_seconds(3.2);  // longer than the timeout; but rank 0 sleeps for the most of it
    world.barrier();
    return 0;
  });
  sleep_seconds(0.3);
  ranks.send(0, SIGSTOP);
  sleep_seconds(2.6);
  ranks.send(0, SIGCONT);
  EXPECT_EQ(ranks.wait(0), 0) << ranks.errors();
  EXPECT_EQ(ranks.wait(1), 0) << ranks.errors();
}

TEST(Watchdog, IsOffWithATimeoutOfZero) {
  RankProcesses ranks(2, [](Communicator& world) {
    const Watchdog watchdog(world, with_timeout(0));
    if (world.rank() == 1) sleep_seconds(1.5);
    world.barrier();
    return 0;
  });
  EXPECT_EQ(ranks.wait(0), 0) << ranks.errors();
}

TEST(Watchdog, TimeoutComesFromTheEnvironment) {
  unsetenv("BIREME_TIMEOUT_SECONDS");
  EXPECT_EQ(timeout_from_environment(), 600);
  setenv("BIREME_TIMEOUT_SECONDS", "2.5", 1);
  EXPECT_EQ(timeout_from_environment(), 2.5);
  for (const char* wrong : {"soon", "-1", "10 minutes"}) {
    setenv("BIREME_TIMEOUT_SECONDS", wrong, 1);
    EXPECT_THROW(timeout_from_environment(), Error) << wrong;
  }
  unsetenv("BIREME_TIMEOUT_SECONDS");
}

TEST(LostRank, IsNamedByThoseThatWaitForIt) {
  RankProcesses ranks(3, [](Communicator& world) {
    world.barrier();
    if (world.rank() == 1) raise(SIGKILL);
    const auto memory = make_host_memory();
    const Tensor tensor(*memory, {1 << 20}, DType::f32);
    fill(tensor, 0);
    world.all_reduce(tensor, Reduce::sum).wait();
    return 0;
  });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(ranks.wait(0), 7);
  EXPECT_EQ(ranks.wait(2), 7);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_NE(ranks.errors().find("rank 1 was lost: its process died"), std::string::npos) << ranks.errors();
}

}  // namespace
}  // namespace bireme
