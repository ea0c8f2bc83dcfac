#include <gtest/gtest.h>

#include "core/base/json.h"
#include "tests/cli/program.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

class SyntheticCommands : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  Outcome prepare(const std::string& words) const {
    return run_program("prepare synthetic " + words + " --output " + path("set"));
  }
  Outcome train(const std::string& words) const {
    return run_program("train --model.type xlstm --model.pattern s --model.embed_dim 16 --model.depth 1 " +
                       ("--model.heads 1 --data.batch_size 8 --run.steps 30 --schedule.warmup_steps 0 " +
                        ("--run.evaluate_every 0 --run.threads 1 --optimizer.learning_rate 0.02 " + words)) +
                       " --data.path " + path("set") + " --run " + path("run"));
  }
  TemporaryFolder folder_;
};

TEST_F(SyntheticCommands, PreferencesOfAKnownRuleAreJudgedExactly) {
  const std::string file = path("pairs.jsonl"), set = path("pairs"), run = path("dpo");
  ASSERT_EQ(run_program("prepare synthetic --task preference --sequences 400 --output " + file).code, 0);
  EXPECT_EQ(run_program("prepare synthetic --task preference --sequences 4 --output " + file).code, 2);
  for (const std::string part : {"train", "evaluation"})
    ASSERT_EQ(run_program("prepare pairs --input " + file + " --tokenizer byte --part " + part +
                          " --output " + set + "-" + part)
                  .code,
              0);
  // Without judges: the rule alone.
  const Outcome trained = run_program(
      "train --model.type rwkv --model.embed_dim 32 --model.depth 1 --objective.type dpo --data.path " + set +
      "-train --data.validation " + set + "-evaluation --data.batch_size 8 --run.steps 8 " +
      "--run.evaluate_every 2 --run.threads 1 --evaluation.prompts " + file +
      " --evaluation.gold_rule true --evaluation.max_tokens 12 --evaluation.prompt_limit 10 --run " + run);
  ASSERT_EQ(trained.code, 0) << trained.errors;
  std::istringstream metrics(folder_.read("dpo/metrics.jsonl"));
  std::string first;
  std::getline(metrics, first);
  const nlohmann::json start = parse_json(first);
  EXPECT_EQ(start["gold_win_rate"], 0.5) << "against itself";
  EXPECT_FALSE(start.contains("judged_win_rate"));
  const nlohmann::json drawn =
      json_of(run_program("plot ranking --run " + run + " --json --output " + path("gold.svg")));
  EXPECT_EQ(drawn["gold"]["whole"]["points"], 5);
  // Prompts of any other kind have no known rule.
  folder_.write("other.jsonl", "{\"prompt\": \"Why?\", \"chosen\": \"a\", \"rejected\": \"b\"}\n");
  const Outcome other = run_program(
      "train --model.type rwkv --model.embed_dim 32 --model.depth 1 --objective.type dpo --data.path " + set +
      "-train --run.steps 8 --run.threads 1 --evaluation.prompts " + path("other.jsonl") +
      " --evaluation.part all --evaluation.gold_rule true --run " + path("other"));
  EXPECT_EQ(other.code, 3);
  EXPECT_TRUE(mentions(other.errors, {"gold rule", "prepare synthetic --task preference"}));
}

TEST_F(SyntheticCommands, ScoredAnswersAreImitatedAndLearntFromByTheirScores) {
  const std::string file = path("scored.jsonl"), set = path("scored");
  ASSERT_EQ(run_program("prepare synthetic --task feedback --sequences 60 --answers 2 --output " + file).code,
            0);
  const Outcome prepared = run_program("prepare feedback --input " + file +
                                       " --tokenizer byte --part train --json --output " + set);
  ASSERT_EQ(prepared.code, 0) << prepared.errors;
  EXPECT_GT(json_of(prepared)["score_deviation"], 0.5);
  const std::string common =
      " --data.path " + set + " --data.batch_size 8 --run.steps 4 --run.log_every 1 --run.threads 1" +
      " --schedule.warmup_steps 0 --run.evaluate_every 2 --evaluation.gold_rule true" +
      " --evaluation.max_tokens 8 --evaluation.prompt_limit 4 --evaluation.prompts " + file;
  const Outcome imitated =
      run_program("train --model.type rwkv --model.embed_dim 16 --model.depth 1" + common +
                  " --objective.type sft --objective.nll_answers liked" + " --run " + path("sft"));
  ASSERT_EQ(imitated.code, 0) << imitated.errors;
  const Outcome learnt = run_program("train --model.type rwkv --model.init " + path("sft") + common +
                                     " --objective.type dro --objective.variance_every 2" +
                                     " --objective.variance_answers 8 --run " + path("dro"));
  ASSERT_EQ(learnt.code, 0) << learnt.errors;
  for (const char* const metric : {"gold_score", "policy_variance_without_value", "value_explained_ahead"})
    EXPECT_NE(folder_.read("dro/metrics.jsonl").find(metric), std::string::npos) << metric;
}

TEST_F(SyntheticCommands, MakeADatasetThatTrainingAndEvaluationTakeAsItIs) {
  const Outcome prepared = prepare("--task parity --sequences 300 --length 12 --shard-size 1000 --json");
  ASSERT_EQ(prepared.code, 0) << prepared.errors;
  EXPECT_EQ(json_of(prepared)["vocabulary"], 3);
  const nlohmann::json report = json_of(run_program("inspect " + path("set") + " --json"));
  EXPECT_EQ(report["is_whole"], true);
  EXPECT_EQ(report["vocabulary"], 3);

  const Outcome trained = train("--data.sequence_length 12 --data.validation " + path("set"));
  ASSERT_EQ(trained.code, 0) << trained.errors;
  EXPECT_NE(folder_.read("run/metrics.jsonl").find("\"accuracy\""), std::string::npos);

  const std::string words = "evaluate perplexity --model " + path("run") + " --data " + path("set");
  const nlohmann::json found = json_of(run_program(words + " --parts 3 --json"));
  EXPECT_EQ(found["tokens"], 300) << "one answer a sequence";
  EXPECT_EQ(found["length"], 12);
  // It has learnt at least that answers are 1 or 2, evenly.
  EXPECT_LT(found["perplexity"].get<double>(), 2.5);
  EXPECT_GT(found["accuracy"].get<double>(), 0.35);
  double right = 0;
  std::int64_t tokens = 0;
  ASSERT_EQ(found["parts"].size(), 3U);
  EXPECT_EQ(found["parts"][1]["fewest_before"], 5);
  EXPECT_EQ(found["parts"][1]["most_before"], 8);
  for (const auto& part : found["parts"]) {
    tokens += part["tokens"].get<std::int64_t>();
    right += part["accuracy"].get<double>() * part["tokens"].get<double>();
  }
  EXPECT_EQ(tokens, 300);
  EXPECT_NEAR(right / 300, found["accuracy"].get<double>(), 1e-9);
  EXPECT_TRUE(mentions(run_program(words + " --parts 2").output, {"accuracy ", "after     7 to    12"}));
}

TEST_F(SyntheticCommands, SayWhatIsWrong) {
  EXPECT_EQ(prepare("--task parities").code, 2);
  EXPECT_EQ(prepare("--task recall --pairs 40").code, 2);
  EXPECT_TRUE(
      mentions(prepare("--task recall --length 20").errors, {"bireme: error: ", "--length", "at least 32"}));
  ASSERT_EQ(prepare("--task recall --sequences 20").code, 0);
  EXPECT_EQ(prepare("--task recall --sequences 20").code, 2) << "there is a dataset already";
  EXPECT_EQ(prepare("--task recall --sequences 20 --force").code, 0);
  const Outcome cut = train("--data.sequence_length 32");
  EXPECT_EQ(cut.code, 2);
  EXPECT_TRUE(mentions(cut.errors, {"data.sequence_length", "set it to 64"}));
}

}  // namespace
}  // namespace bireme::test
