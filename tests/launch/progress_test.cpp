#include "launch/progress.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include "launch/numbers.h"
#include "launch/terminal.h"

namespace bireme {
namespace {

/// A clock that the test moves, and a screen that it reads.
struct Stage {
  double time = 0;
  std::string screen;

  ProgressOptions options(int columns, std::int64_t total, std::int64_t start = 0) {
    return {.total = total,
            .start = start,
            .columns = columns,
            .write = [this](std::string_view text) { screen += text; },
            .now = [this] { return time; }};
  }
};

TEST(Progress, WritesAPlainLineEveryFewSecondsWithoutATerminal) {
  Stage stage;
  Progress progress(stage.options(0, 100));
  for (int step = 1; step <= 100; ++step) {
    stage.time += 0.5;
    progress.update(step, "loss 2.913");
  }
  EXPECT_EQ(stage.screen,
            "step 1/100  loss 2.913  ETA 50 s\n"
            "step 21/100  loss 2.913  ETA 40 s\n"
            "step 41/100  loss 2.913  ETA 30 s\n"
            "step 61/100  loss 2.913  ETA 20 s\n"
            "step 81/100  loss 2.913  ETA 9.5 s\n"
            "step 100/100  loss 2.913  took 50 s\n");
}

TEST(Progress, RedrawsABarInPlaceThatFitsTheTerminal) {
  Stage stage;
  {
    Progress progress(stage.options(60, 4));
    stage.time = 2;
    progress.update(1, "loss 1.5");
    EXPECT_EQ(stage.screen, fmt::format("\r{}  25 %  step 1/4  loss 1.5  ETA 6 s\x1b[K", draw_bar(0.25, 22)));
    stage.screen.clear();
    stage.time = 2.05;
    progress.update(2);
    EXPECT_EQ(stage.screen, "");  // too soon to redraw
  }
  EXPECT_EQ(stage.screen, "\n");  // stopped early: the line is ended
  stage.screen.clear();
  Progress narrow(stage.options(20, 4));
  stage.time = 10;
  narrow.update(1, "loss 1.5  images/s 12");
  EXPECT_EQ(stage.screen, "\rstep 1/4  loss 1.5 \x1b[K");  // cut to 19 columns, no bar
}

TEST(Progress, RateOfAResumedRunLeavesOutEarlierSteps) {
  Stage stage;
  Progress progress(stage.options(0, 1000, 900));
  stage.time = 10;
  progress.update(910);
  EXPECT_EQ(stage.screen, "step 910/1000  ETA 1 min 30 s\n");  // a second a step, not ten steps in 0.1
}

TEST(Progress, APauseCountsAsItsShareOfTheTime) {
  Stage stage;
  Progress progress(stage.options(0, 200));
  for (int step = 1; step <= 100; ++step) {
    stage.time += step % 10 == 1 ? 31 : 1;  // an evaluation every ten steps: 4 s a step
    progress.update(step);
  }
  stage.screen.clear();
  stage.time += 31;
  progress.update(101);
  EXPECT_EQ(stage.screen,
            "step 101/200  ETA 7 min 22 s\n");  // 6 min 36 s would be right; the last step alone 51 min
}

TEST(Progress, OtherRanksSayNothing) {
  Stage stage;
  ProgressOptions options = stage.options(0, 10);
  options.is_shown = false;
  Progress progress(std::move(options));
  progress.update(10);
  EXPECT_EQ(stage.screen, "");
}

TEST(Progress, BarFillsInEighths) {
  EXPECT_EQ(draw_bar(0, 3), "▕   ▏");
  EXPECT_EQ(draw_bar(0.5, 3), "▕█▌ ▏");
  EXPECT_EQ(draw_bar(1, 3), "▕███▏");
  EXPECT_EQ(draw_bar(7, 3), "▕███▏");
}

TEST(Terminal, FileIsNone) { EXPECT_EQ(terminal_columns(-1), 0); }

TEST(Numbers, AreReadWholeOrNotAtAll) {
  EXPECT_EQ(parse_integer("-5"), -5);
  EXPECT_EQ(parse_integer("+7"), 7);
  for (const char* text : {"", "3x", "1.0", " 1", "99999999999999999999", "-", "0x10"})
    EXPECT_FALSE(parse_integer(text)) << text;
  EXPECT_EQ(parse_number("1e-3"), 1e-3);
  for (const char* text : {"", "nan", "inf", "1e400", "1,0"}) EXPECT_FALSE(parse_number(text)) << text;
  EXPECT_EQ(split_list("[1, 2,3 ]"), (std::vector<std::string>{"1", "2", "3"}));
  EXPECT_EQ(split_list("1,"), (std::vector<std::string>{"1", ""}));
  EXPECT_TRUE(split_list("[]").empty());
}

TEST(Numbers, AreShortForPeople) {
  EXPECT_EQ(short_number(31415), "31.4k");
  EXPECT_EQ(short_number(0.25), "0.25");
  EXPECT_EQ(short_number(999.7), "1.00k");
  EXPECT_EQ(short_number(12), "12");
  EXPECT_EQ(short_number(2.1e9), "2.10G");
  EXPECT_EQ(short_duration(8), "8 s");
  EXPECT_EQ(short_duration(90), "1 min 30 s");
  EXPECT_EQ(short_duration(725), "12 min");
  EXPECT_EQ(short_duration(9000), "2 h 30 min");
  EXPECT_EQ(short_duration(200000), "2 d 7 h");
}

}  // namespace
}  // namespace bireme
