#include <gtest/gtest.h>

#include <fstream>

#include "core/base/json.h"
#include "objectives/reference_cache.h"
#include "tests/cli/program.h"
#include "tests/support/expect_error.h"
#include "tests/support/judge_folder.h"

namespace bireme::test {
namespace {

class WinRateCommand : public testing::Test {
 protected:
  WinRateCommand() {
    model_ = policy_.exported("policy").string();
    other_ = other_fixture_.exported("other").string();
    judge_ = make_judge(judge_fixture_, "judge").string();
    prompts_ = policy_.folder.write("pairs.jsonl", AnswerFixture::pairs(120)).string();
  }
  Outcome run(const std::string& more) const {
    return run_program("evaluate win-rate --model " + model_ + " --prompts " + prompts_ + " --max-tokens 5 " +
                       more);
  }

  AnswerFixture policy_{"llama", 1}, other_fixture_{"llama", 2}, judge_fixture_{"xlstm", 3};
  std::string model_, other_, judge_, prompts_;
};

TEST_F(WinRateCommand, PrintsTheWinRateWithWhatItsJudgesAreWorth) {
  const std::string answers = (policy_.folder.path() / "answers.jsonl").string();
  const Outcome outcome = run("--against " + other_ + " --judge " + judge_ + " --json --output " + answers);
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  const nlohmann::json result = json_of(outcome);
  EXPECT_GT(result["count"], 3);
  EXPECT_EQ(result["count"].get<int>() + result["other_parts_left_out"].get<int>(), 120);
  EXPECT_GE(result["judged_win_rate"], 0);
  EXPECT_LE(result["judged_win_rate"], 1);
  EXPECT_TRUE(result.contains("ceiling") && result.contains("head_room"));
  EXPECT_EQ(result["judges"], 1);
  EXPECT_GT(result["validation_pairs"], 0);
  // A judge with made-up weights knows nothing, and is not taken at its word.
  EXPECT_EQ(result["reliable"], false);
  EXPECT_TRUE(result["win_rate"].is_null());
  EXPECT_EQ(result["verdict"], "judge not reliable");
  std::ifstream file(answers);
  int lines = 0;
  for (std::string line; std::getline(file, line); ++lines) EXPECT_TRUE(parse_json(line).contains("against"));
  EXPECT_EQ(lines, result["count"]);
}

TEST_F(WinRateCommand, AgreesWithWhatTrainingMeasuresOnTheWay) {
  policy_.prepare("data", AnswerKind::pairs, AnswerFixture::pairs(24));
  const std::string folder = policy_.folder.path().string(), trained = folder + "/run";
  const Outcome training = run_program(
      "train --model.type llama --model.init " + model_ + " --objective.type dpo --data.path " + folder +
      "/data --data.validation " + folder + "/data --data.batch_size 4 --optimizer.learning_rate 0.003 " +
      "--run.steps 6 --run.evaluate_every 2 --run.threads 1 --schedule.warmup_steps 1 --evaluation.prompts " +
      prompts_ + " --evaluation.judge " + judge_ + " --evaluation.max_tokens 5 --run " + trained);
  ASSERT_EQ(training.code, 0) << training.errors;
  EXPECT_TRUE(
      mentions(training.errors + training.output, {"win rate", "against the reference", "not reliable"}));
  std::istringstream metrics(policy_.folder.read("run/metrics.jsonl"));
  nlohmann::json last;
  for (std::string line; std::getline(metrics, line);) last = parse_json(line);
  EXPECT_EQ(last["step"], 6);
  EXPECT_TRUE(last["win_rate"].is_null());
  const Outcome outcome =
      run_program("evaluate win-rate --model " + trained + " --against " + model_ + " --prompts " + prompts_ +
                  " --max-tokens 5 --json --batch-size 32 --judge " + judge_);
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  const nlohmann::json result = json_of(outcome);
  EXPECT_EQ(last["judged_win_rate"], result["judged_win_rate"]);
  // Of fp32 scores, which depend on the number of threads without AVX-512.
  EXPECT_NEAR(last["soft_win_rate"].get<double>(), result["soft_win_rate"].get<double>(), 1e-6);
  EXPECT_EQ(last["answer_tokens"], result["mean_length"]);
  EXPECT_EQ(parse_json(policy_.folder.read("run/evaluation/step-00000006.json"))["wins"].size(),
            result["count"]);

  const Outcome plot =
      run_program("plot ranking --run " + trained + " --json --output " + folder + "/ranking.svg");
  ASSERT_EQ(plot.code, 0) << plot.errors;
  const nlohmann::json drawn = json_of(plot);
  EXPECT_EQ(drawn["panels"], 3);
  EXPECT_EQ(drawn["whole"]["points"], 4);
  EXPECT_EQ(drawn["judges_reliable"], false);
}

TEST_F(WinRateCommand, AModelAgainstItselfIsATie) {
  const nlohmann::json result = json_of(run("--against " + model_ + " --judge " + judge_ + " --json"));
  EXPECT_EQ(result["judged_win_rate"], 0.5);
  EXPECT_EQ(result["ties"], result["count"]);
}

TEST_F(WinRateCommand, KeepsTheRulesOfJudging) {
  const std::string same = make_judge(judge_fixture_, "same", hash_of_model(other_)).string();
  const Outcome kin = run("--against " + other_ + " --judge " + same);
  EXPECT_EQ(kin.code, 2);
  EXPECT_TRUE(mentions(kin.errors, {"trained from a model that it is to judge", "another model"}));
  const std::string all = make_judge(judge_fixture_, "all", "a base", "all").string();
  const Outcome overlap = run("--against " + other_ + " --judge " + all);
  EXPECT_EQ(overlap.code, 2);
  EXPECT_TRUE(mentions(overlap.errors, {"part `all`", "--part judge", "--allow-overlap"}));
  EXPECT_EQ(run("--against " + other_ + " --judge " + all + " --allow-overlap --limit 2").code, 0);
  const Outcome none = run("--against " + other_ + " --judge " + model_);
  EXPECT_EQ(none.code, 4);
  EXPECT_TRUE(mentions(none.errors, {"no judge"}));
  const Outcome chosen = run("--against chosen --judge " + judge_ + " --limit 3");
  EXPECT_EQ(chosen.code, 0) << chosen.errors;
  EXPECT_TRUE(mentions(chosen.output, {"win rate", "accuracy", "judge not reliable"}));
}

TEST_F(WinRateCommand, TakesAJudgeThatTrainMade) {
  std::string lines;  // whoever says yes is preferred
  for (int i = 0; i < 200; ++i)
    lines += "{\"prompt\": \"Q" + std::to_string(i) + "?\", \"chosen\": \"yes" +
             std::string(static_cast<std::size_t>(i % 3), '!') + "\", \"rejected\": \"no" +
             std::string(static_cast<std::size_t>((i * i + i / 3) % 4), '!') + "\"}\n";
  const std::string file = policy_.folder.write("rule.jsonl", lines).string(),
                    set = (policy_.folder.path() / "rule").string(),
                    run = (policy_.folder.path() / "run").string();
  for (const std::string part : {"judge", "judge-validation"})
    ASSERT_EQ(run_program("prepare pairs --input " + file + " --tokenizer byte --part " + part +
                          " --output " + set + "-" + part)
                  .code,
              0);
  const Outcome trained = run_program(
      "train --model.type rwkv --model.embed_dim 32 --model.depth 1 --objective.type judge --data.path " +
      set + "-judge --data.validation " + set +
      "-judge-validation --data.batch_size 16 --run.steps 60 --run.evaluate_every 30 "
      "--run.checkpoint_every 60 --optimizer.learning_rate 0.01 --optimizer.minimum_learning_rate 0.001 "
      "--schedule.warmup_steps 5 --run.threads 1 --run " +
      run);
  ASSERT_EQ(trained.code, 0) << trained.errors;
  const std::string metrics = policy_.folder.read("run/metrics.jsonl");
  EXPECT_TRUE(mentions(metrics, {"accuracy", "validation_accuracy_shorter"}));
  const Outcome outcome = run_program("evaluate win-rate --model " + model_ + " --against chosen --judge " +
                                      run + " --prompts " + file + " --max-tokens 5 --json");
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  const nlohmann::json result = json_of(outcome);
  EXPECT_GT(result["judge_accuracy"], 0.9) << "the rule is easy";
  EXPECT_EQ(result["ceiling"], 1);
}

}  // namespace
}  // namespace bireme::test
