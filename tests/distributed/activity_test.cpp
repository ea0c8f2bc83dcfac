#include "distributed/activity.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>

namespace bireme {
namespace {

class LastNews : public testing::Test {
 protected:
  LastNews()
      : roster_(std::make_shared<Roster>(
            Roster::Options{.name = "bireme-activity-test-" + std::to_string(getpid())})),
        activity_({.roster = roster_, .members = {{0, 0, &stamps_[0]}, {1, 0, &stamps_[1]}}}) {}

  std::array<Stamp, 2> stamps_{};
  std::shared_ptr<Roster> roster_;
  Activity activity_;
};

TEST_F(LastNews, IsASignOfLifeOfARankThatHasNotArrived) {
  stamps_[0].sequence = stamps_[1].sequence = 4;
  activity_.begin({.collective = Collective::barrier});
  stamps_[0].since_seconds = 1;
  EXPECT_EQ(activity_.last_news_seconds(), roster_->last_beat_seconds(0));
}

TEST_F(LastNews, IsTheArrivalOfTheLastRank) {
  activity_.begin({.collective = Collective::barrier});
  stamps_[0].since_seconds = 1;
  stamps_[1].sequence = 1;
  stamps_[1].since_seconds = 7;  // long after this rank, and long after its own last sign of life
  EXPECT_EQ(activity_.last_news_seconds(), 7);
}

TEST_F(LastNews, IsASignOfLifeOfARankThatHasLeftTheCollective) {
  activity_.begin({.collective = Collective::barrier});
  stamps_[0].since_seconds = 1;
  stamps_[1].sequence = 1;
  stamps_[1].since_seconds = 0;
  EXPECT_EQ(activity_.last_news_seconds(), roster_->last_beat_seconds(0));
}

}  // namespace
}  // namespace bireme
