#include <gtest/gtest.h>

#include "tests/cli/program.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

const std::string kPairs = R"({"prompt": "Name:", "chosen": " Ann", "rejected": " x"}
{"prompt": "Same", "chosen": "a", "rejected": "a"}
{"prompt": "Vote", "chosen": "no", "rejected": "yes", "preference": 0.25}
)";

TEST(AnswerCommands, PrepareEachKindAndInspectShowsIt) {
  const TemporaryFolder folder;
  const std::string input = folder.write("pairs.jsonl", kPairs).string(),
                    set = (folder.path() / "set").string();
  const std::string words = " --input " + input + " --tokenizer byte --output " + set + " --force --json";
  const nlohmann::json pairs = json_of(run_program("prepare pairs" + words));
  EXPECT_EQ(pairs["records"], 2);
  EXPECT_EQ(pairs["counts"]["identical"], 1);
  EXPECT_EQ(pairs["counts"]["swapped"], 1);
  const nlohmann::json report = json_of(run_program("inspect " + set + " --json"));
  EXPECT_EQ(report["contents"], "pairs");
  EXPECT_EQ(report["end"], 256);
  EXPECT_EQ(report["counts"]["identical"], 1);
  EXPECT_EQ(report["is_whole"], true);
  EXPECT_TRUE(
      mentions(run_program("inspect " + set).output, {"dataset of pairs", "chosen:", " Ann", "whole"}));
  EXPECT_EQ(json_of(run_program("prepare feedback --from-pairs" + words))["records"], 4);
  EXPECT_EQ(json_of(run_program("prepare sft --from-pairs" + words))["records"], 2);
}

TEST(AnswerCommands, SayWhatIsWrong) {
  const TemporaryFolder folder;
  const std::string input =
      folder.write("bad.jsonl", kPairs + "{\"prompt\": \"p\", \"chosen\": \"x\"}\n").string();
  const auto prepare = [&](const std::string& kind, const std::string& more) {
    return run_program("prepare " + kind + " --input " + input + " --output " +
                       (folder.path() / "set").string() + " " + more);
  };
  const Outcome missing = prepare("pairs", "--tokenizer byte");
  EXPECT_EQ(missing.code, 3);
  EXPECT_TRUE(mentions(missing.errors, {"bireme: error: ", "rejected", "bad.jsonl:4", "--skip-bad"}));
  const Outcome kind = prepare("feedback", "--tokenizer byte");
  EXPECT_EQ(kind.code, 3);
  EXPECT_TRUE(mentions(kind.errors, {"bad.jsonl:1", "--from-pairs"}));
  const Outcome end = prepare("pairs", "--tokenizer byte --eos '<stop>'");
  EXPECT_EQ(end.code, 2);
  EXPECT_TRUE(mentions(end.errors, {"<stop>", "--eos"}));
  const Outcome form = prepare("pairs", "--tokenizer byte --chat --chat-template chatlm");
  EXPECT_EQ(form.code, 2);
  EXPECT_TRUE(mentions(form.errors, {"chatlm", "did you mean `chatml`"}));
  EXPECT_EQ(prepare("pairs", "--tokenizer byte --part most").code, 2);
  EXPECT_EQ(prepare("pairs", "--tokenizer byte --skip-bad").code, 0);
}

}  // namespace
}  // namespace bireme::test
