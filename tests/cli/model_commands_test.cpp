#include <gtest/gtest.h>

#include "tests/cli/program.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

TEST(ModelCommands, ShowTheirHelpAndRejectUnknownOptionsWithTheNearest) {
  for (const std::string command : {"export", "plot attention"}) {
    const Outcome help = run_program(command + " --help");
    EXPECT_EQ(help.code, 0);
    EXPECT_TRUE(mentions(help.output, {"Examples:", "bireme " + command, "--model"}));
    const Outcome unknown = run_program(command + " --modle a --output b");
    EXPECT_EQ(unknown.code, 2);
    EXPECT_TRUE(mentions(unknown.errors, {"--modle", "--model"}));
  }
}

TEST(ModelCommands, SayWhatIsNoModel) {
  const TemporaryFolder folder;
  const std::string output = (folder.path() / "exported").string();
  const Outcome missing = run_program("export --model /no/such/model --output " + output);
  EXPECT_EQ(missing.code, 4);
  EXPECT_TRUE(mentions(missing.errors, {"/no/such/model", "checkpoint folder, a run folder"}));
  folder.write("run/checkpoints/.keep", "");
  const Outcome early =
      run_program("export --model " + (folder.path() / "run").string() + " --output " + output);
  EXPECT_EQ(early.code, 4);
  EXPECT_TRUE(mentions(early.errors, {"no checkpoint yet"}));
  EXPECT_FALSE(std::filesystem::exists(output));
}

}  // namespace
}  // namespace bireme::test
