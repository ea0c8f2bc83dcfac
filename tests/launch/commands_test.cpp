#include "launch/commands.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/error.h"

namespace bireme {
namespace {

std::string output_of(const std::vector<std::string>& arguments, int expected_code = 0) {
  testing::internal::CaptureStdout();
  int code = -1;
  try {
    code = run_bireme(arguments);
  } catch (...) {
    testing::internal::GetCapturedStdout();
    throw;
  }
  EXPECT_EQ(code, expected_code);
  return testing::internal::GetCapturedStdout();
}

std::string failure(const std::vector<std::string>& arguments) {
  try {
    run_bireme(arguments);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    return error.what();
  }
  return "";
}

/// Lists inside commands (`bireme plot`) show their commands, single commands their options with two
/// examples.
TEST(Commands, EachAnswersHelp) {
  const std::string list = output_of({"--help"});
  for (const Command& command : commands()) {
    SCOPED_TRACE(command.name);
    EXPECT_NE(list.find(std::string(command.name) + " "), std::string::npos);
    const std::string text = output_of({std::string(command.name), "--help"});
    EXPECT_NE(text.find("Usage: bireme " + std::string(command.name)), std::string::npos) << text;
    if (text.find("Commands:") != std::string::npos) continue;
    const auto examples = text.find("Examples:");
    ASSERT_NE(examples, std::string::npos) << text;
    EXPECT_GE(std::count(text.begin() + static_cast<std::ptrdiff_t>(examples), text.end(), '\n'), 3) << text;
  }
}

TEST(Commands, UnknownOnesAreRefusedWithTheNearestName) {
  EXPECT_EQ(failure({"docter"}), "unknown command `docter`: bireme: did you mean `bireme doctor`?");
  EXPECT_EQ(failure({"plot", "curve"}),
            "unknown command `curve`: bireme plot: did you mean `bireme plot curves`?");
  EXPECT_NE(failure({"zzzzzzzz"}).find("choose one of "), std::string::npos);
  EXPECT_NE(failure({}).find("no command is given"), std::string::npos);
  EXPECT_EQ(failure({"doctor", "--jsno"}), "unknown option `--jsno`: bireme doctor: did you mean `--json`?");
}

TEST(Commands, VersionIsOneLine) { EXPECT_EQ(output_of({"--version"}).find("bireme "), 0U); }

}  // namespace
}  // namespace bireme
