#include "distributed/signals.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace bireme {
namespace {

TEST(SignalFlag, IsRaisedByEachOfItsSignalsAndRestoresWhatWasThere) {
  struct sigaction before {};
  sigaction(SIGTERM, nullptr, &before);
  for (const int signal : {SIGTERM, SIGUSR1, SIGINT}) {
    const SignalFlag flag;
    EXPECT_FALSE(flag.is_raised());
    raise(signal);
    EXPECT_EQ(flag.signal(), signal);
  }
  struct sigaction after {};
  sigaction(SIGTERM, nullptr, &after);
  EXPECT_EQ(after.sa_handler, before.sa_handler);
}

TEST(SignalFlag, AClosedOutputIsAFailedWrite) {
  const SignalFlag flag;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  EXPECT_EQ(write(ends[1], "x", 1), -1);
  close(ends[1]);
}

TEST(SignalFlagDeathTest, TheSecondInterruptEndsAtOnce) {
  const auto interrupt_twice = [] {
    const SignalFlag flag;
    raise(SIGINT);
    raise(SIGINT);
  };
  EXPECT_EXIT(interrupt_twice(), testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace bireme
