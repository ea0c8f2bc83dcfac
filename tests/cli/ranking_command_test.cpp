#include <gtest/gtest.h>

#include "core/io/hdf5.h"
#include "tests/cli/program.h"
#include "tests/support/answer_fixture.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

TEST(RankingCommand, ComparesAModelWithItsReference) {
  const AnswerFixture policy("llama", 1), reference("llama", 2);
  const AnswerDataset pairs = policy.prepare("set", AnswerKind::pairs, AnswerFixture::pairs(20));
  const std::string set = pairs.folder().string(), output = (policy.folder.path() / "pairs.h5").string();
  const Outcome outcome = run_program("evaluate ranking --model " + policy.exported("policy").string() +
                                      " --reference " + reference.exported("reference").string() +
                                      " --data " + set + " --beta 0.1,1 --json --output " + output);
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  const nlohmann::json result = json_of(outcome);
  EXPECT_EQ(result["count"], 20);
  EXPECT_EQ(result["ties_left_out"], 0);
  EXPECT_EQ(result["idealized"].size(), 2u);
  EXPECT_EQ(result["gap"].size(), 2u);
  for (const char* key :
       {"ranking_accuracy", "ranking_accuracy_normalized", "reference_ranking_accuracy",
        "reference_ranking_accuracy_normalized", "idealized_normalized", "squared_distance"})
    EXPECT_TRUE(result.contains(key)) << key;
  const Hdf5Reader file(output);
  const auto memory = make_host_memory();
  const Tensor ratio = file.read("log_ratio", *memory), category = file.read("category", *memory);
  ASSERT_EQ(ratio.elements(), 20);
  std::int64_t right = 0, flipped = 0;
  for (std::int64_t i = 0; i < 20; ++i) {
    right += ratio.data<double>()[i] >= 0;
    flipped += category.data<std::int64_t>()[i] == 1;
  }
  EXPECT_EQ(result["ranking_accuracy"], static_cast<double>(right) / 20);
  EXPECT_EQ(result["flipped_to_right"], flipped);

  const Outcome same =
      run_program("evaluate ranking --model " + (policy.folder.path() / "policy").string() + " --reference " +
                  (policy.folder.path() / "policy").string() + " --data " + set);
  EXPECT_TRUE(
      mentions(same.output, {"20 pairs", "ranking accuracy", "flipped to right 0.0 %", "ideal at beta 0.1"}));
}

TEST(RankingCommand, RefusesDataOfAnotherKind) {
  const AnswerFixture fixture;
  const AnswerDataset sft =
      fixture.prepare("set", AnswerKind::sft, "{\"prompt\": \"p\", \"completion\": \"c\"}\n");
  const std::string model = fixture.exported("model").string();
  const Outcome kind = run_program("evaluate ranking --model " + model + " --data " + sft.folder().string());
  EXPECT_EQ(kind.code, 3);
  EXPECT_TRUE(mentions(kind.errors, {"holds sft, not pairs", "bireme prepare pairs"}));
  const Outcome beta = run_program("evaluate ranking --model " + model + " --data x --beta 0");
  EXPECT_EQ(beta.code, 2);
}

TEST(RankingCommand, RanksSeveralScoredAnswersToAPrompt) {
  const AnswerFixture fixture;
  const AnswerDataset scored = fixture.prepare("set", AnswerKind::feedback,
                                               R"({"prompt": "p", "completion": "a", "score": 1}
{"prompt": "p", "completion": "bcd", "score": 3}
{"prompt": "p", "completion": "efghij", "score": 2}
{"prompt": "q", "completion": "a", "score": 1}
)");
  const nlohmann::json result =
      json_of(run_program("evaluate ranking --model " + fixture.exported("model").string() + " --data " +
                          scored.folder().string() + " --json"));
  EXPECT_EQ(result["prompts"], 1);
  EXPECT_EQ(result["pairs"], 3);
}

TEST(ReferenceCommand, KeepsACacheForEachModelAndNoticesAnother) {
  const AnswerFixture first("llama", 1), second("llama", 2);
  const AnswerDataset pairs = first.prepare("set", AnswerKind::pairs, AnswerFixture::pairs(10));
  const std::string data = " --data " + pairs.folder().string(),
                    cache = (first.folder.path() / "cache").string();
  const std::string one = first.exported("one").string(), two = second.exported("two").string();
  const nlohmann::json made = json_of(run_program("prepare reference --model " + one + data + " --json"));
  EXPECT_EQ(made["records"], 10);
  EXPECT_TRUE(std::filesystem::exists(made["output"].get<std::string>() + "/reference.json"));
  const nlohmann::json other = json_of(run_program("prepare reference --model " + two + data + " --json"));
  EXPECT_NE(other["output"], made["output"]) << "both have their place";
  EXPECT_EQ(run_program("prepare reference --model " + one + data + " --output " + cache).code, 0);
  const Outcome wrong = run_program("prepare reference --model " + two + data + " --output " + cache);
  EXPECT_EQ(wrong.code, 3);
  EXPECT_TRUE(mentions(wrong.errors, {"`model_sha256`", "--force"}));
  EXPECT_EQ(run_program("prepare reference --model " + two + data + " --output " + cache + " --force").code,
            0);
  EXPECT_EQ(run_program("inspect " + pairs.folder().string()).code, 0);
}

}  // namespace
}  // namespace bireme::test
