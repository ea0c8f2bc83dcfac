#include "launch/options.h"

#include <gtest/gtest.h>

#include "core/base/error.h"

namespace bireme {
namespace {

Options make_options() {
  Options options("bireme work", "does some work");
  options.value("steps", "N", "how many", "7")
      .required("run", "DIR", "where")
      .list("input", "FILE", "files")
      .flag("fast", "hurry")
      .configuration({"optimizer.learning_rate", "optimizer.epsilon"})
      .example("bireme work --run a")
      .example("bireme work --run b --fast");
  return options;
}

std::string options_failure(const std::vector<std::string>& arguments) {
  Options options = make_options();
  try {
    if (!options.parse(arguments)) return "help";
    options.integer("steps", 1, 100);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    return error.what();
  }
  return "";
}

TEST(Options, LastValueWinsAndListsGoOn) {
  Options options = make_options();
  const std::vector<std::string> arguments = {
      "--run",   "a",       "--input", "x",           "y",
      "--run=b", "--input", "z",       "--fast=true", "--optimizer.epsilon",
      "1e-6",    "--steps", "3"};
  ASSERT_TRUE(options.parse(arguments));
  EXPECT_EQ(options.text("run"), "b");
  EXPECT_EQ(options.texts("input"), (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_TRUE(options.flag("fast"));
  EXPECT_FALSE(options.json());
  EXPECT_EQ(options.integer("steps"), 3);
  ASSERT_EQ(options.overrides().size(), 1U);
  EXPECT_EQ(options.overrides()[0].key, "optimizer.epsilon");
}

TEST(Options, DefaultsHoldAndNumbersMayBeNegativeOrCommaSeparated) {
  Options options("bireme x", "x");
  options.value("k", "N", "", "10,20").value("low", "N", "");
  ASSERT_TRUE(options.parse(std::vector<std::string>{"--low", "-5"}));
  EXPECT_EQ(options.integers("k", 1, 100), (std::vector<std::int64_t>{10, 20}));
  EXPECT_EQ(options.integer("low"), -5);
  EXPECT_EQ(options.number("low"), -5.0);
}

TEST(Options, MistakesNameTheOptionAndTheNearestName) {
  EXPECT_EQ(options_failure({"--run", "a", "--stesp", "1"}),
            "unknown option `--stesp`: bireme work: did you mean `--steps`?");
  // No guessing from a prefix: --optimizer.learning is nobody's name.
  EXPECT_EQ(
      options_failure({"--run", "a", "--optimizer.learning_rat", "1"}),
      "unknown option `--optimizer.learning_rat`: bireme work: did you mean `--optimizer.learning_rate`?");
  EXPECT_EQ(options_failure({"--run", "a", "--step", "1"}),
            "unknown option `--step`: bireme work: did you mean `--steps`?");
  EXPECT_EQ(options_failure({"--fast"}),
            "`--run DIR` is missing: bireme work: `bireme work --help` lists the options");
  EXPECT_EQ(options_failure({"--run", "a", "stray"}),
            "unexpected word `stray`: bireme work: `bireme work --help` lists the options");
  EXPECT_NE(options_failure({"--run"}).find("run"), std::string::npos);
  EXPECT_EQ(options_failure({"--run", "a", "--steps", "3x"}),
            "`--steps` is `3x`, not a whole number: bireme work: `bireme work --help` lists the options");
  EXPECT_NE(options_failure({"--run", "a", "--steps", "101"}).find("outside 1 to 100"), std::string::npos);
}

TEST(Options, HelpShowsEveryOptionDefaultAndBothExamplesWithoutRequiringAnything) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(options_failure({"--help"}), "help");
  const std::string text = testing::internal::GetCapturedStdout();
  for (const char* part :
       {"--steps N", "(default 7)", "--run DIR", "--input FILE...", "--fast", "--json", "--help",
        "bireme work --run a\n", "bireme work --run b --fast\n", "--SECTION.KEY VALUE"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in\n" << text;
}

TEST(Options, OnePositionalWordIsTakenWhereDeclared) {
  Options options("bireme inspect", "looks");
  options.positional("path", "PATH", "what to look at");
  ASSERT_TRUE(options.parse(std::vector<std::string>{"--json", "data/a"}));
  EXPECT_EQ(options.path("path"), "data/a");
  EXPECT_TRUE(options.json());
}

}  // namespace
}  // namespace bireme
