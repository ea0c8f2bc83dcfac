#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "launch/preference_task.h"
#include "launch/trainer.h"
#include "launch/training_state.h"
#include "objectives/reference_cache.h"
#include "tests/support/expect_error.h"
#include "tests/support/judge_folder.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

constexpr std::int64_t kWinRateSteps = 4;

/// A policy of two layers that learns from made-up pairs, judged by two judges of other kinds of model.
class WinRateTraining : public testing::Test {
 protected:
  WinRateTraining() {
    policy_.prepare("data", AnswerKind::pairs, AnswerFixture::pairs(24));
    policy_.prepare("held_out", AnswerKind::pairs, AnswerFixture::pairs(10));
    prompts_ = policy_.folder.write("prompts.jsonl", AnswerFixture::pairs(120));
    start_ = policy_.exported("start");
    judges_ = {make_judge(first_, "judge-1").string(), make_judge(second_, "judge-2").string()};
  }

  Configuration configuration(int tensor = 1) const {
    Configuration c = parse_configuration("model.type = \"llama\"\nobjective.type = \"dpo\"", "test");
    c.model.init = start_.string();
    c.data.path = (policy_.folder.path() / "data").string();
    c.data.validation = (policy_.folder.path() / "held_out").string();
    c.data.batch_size = 4;
    c.schedule.warmup_steps = 1;
    c.optimizer.epsilon = 1e-4;
    c.optimizer.learning_rate = 3e-3;
    c.parallel.tensor = tensor;
    c.evaluation.prompts = prompts_.string();
    c.evaluation.judge = judges_;
    c.evaluation.max_tokens = 6;
    c.evaluation.batch_size = 4;
    c.run.steps = kWinRateSteps;
    c.run.evaluate_every = 2;
    c.run.threads = 1;
    c.run.timeout_seconds = 0;
    return c;
  }

  AnswerFixture policy_{"llama", 1}, first_{"xlstm", 3}, second_{"rwkv", 4};
  std::filesystem::path prompts_, start_;
  std::vector<std::string> judges_;
};

using Numbers = std::map<std::string, double>;

/// What is found before the first step, halfway and at the end.
std::vector<Numbers> train_judged(const Configuration& configuration, int ranks,
                                  const std::filesystem::path& run, const std::filesystem::path& save = {},
                                  const std::filesystem::path& resume = {}) {
  std::vector<Numbers> found;
  std::mutex mutex;
  run_on_ranks(ranks, [&](Communicator& world) {
    const Context context = make_context(configuration, world);
    PreferenceTask task(configuration, context, TaskData::real);
    Trainer trainer(configuration, context, task.objective(), task.steps());
    const TrainingState state{context, task, trainer.optimizer(), to_toml(configuration),
                              trainer.companion_optimizer()};
    task.enter(run);
    const std::int64_t start = resume.empty() ? 0 : load_training_state(state, resume);
    std::vector<Numbers> own;
    const auto look = [&](bool is_first) {
      const TrainingEvaluation one = task.evaluate(is_first);
      own.emplace_back(one.numbers.begin(), one.numbers.end());
    };
    if (start == 0) look(true);
    task.start(start);
    for (std::int64_t step = start; step < kWinRateSteps; ++step) {
      trainer.step(step, [&] { return task.next(); });
      if (!save.empty() && step + 1 == kWinRateSteps / 2) save_training_state(state, save, step + 1);
      if ((step + 1) % 2 == 0) look(false);
    }
    const std::scoped_lock lock(mutex);
    if (world.rank() == 0) found = own;
  });
  return found;
}

TEST_F(WinRateTraining, BeginsAtATieWithItsReference) {
  const std::vector<Numbers> found = train_judged(configuration(), 1, policy_.folder.path() / "run");
  ASSERT_EQ(found.size(), 3u);
  const Numbers &first = found.front(), &last = found.back();
  EXPECT_EQ(first.at("judged_win_rate"), 0.5) << "the same model writes the same";
  EXPECT_EQ(first.at("win_rate_ties"), 1);
  EXPECT_EQ(first.at("own_samples_kl"), 0);
  EXPECT_EQ(first.at("distance_squared"), 0);
  EXPECT_EQ(first.at("flipped_to_right") + first.at("flipped_to_wrong"), 0);
  EXPECT_TRUE(std::isnan(first.at("win_rate"))) << "judges with made-up weights know nothing";
  EXPECT_EQ(first.at("judge_reliable"), 0);
  EXPECT_LT(last.at("win_rate_ties"), 1);
  EXPECT_GT(last.at("distance_squared"), 0);
  EXPECT_NE(last.at("own_samples_kl"), 0);
  EXPECT_GT(last.at("validation_chosen_log_ratio"), last.at("validation_rejected_log_ratio"));
  double shares = 0;
  for (const char* name : {"wrong_wrong", "flipped_to_right", "flipped_to_wrong", "right_right"})
    shares += last.at(name);
  EXPECT_NEAR(shares, 1, 1e-12);
}

TEST_F(WinRateTraining, IsTheSameOnEveryLayout) {
  const std::vector<Numbers> alone = train_judged(configuration(), 1, policy_.folder.path() / "alone");
  for (const auto& [ranks, tensor] : {std::pair(2, 1), {2, 2}, {4, 2}}) {
    const auto name = std::to_string(ranks) + " ranks, tensor " + std::to_string(tensor);
    const std::vector<Numbers> other =
        train_judged(configuration(tensor), ranks, policy_.folder.path() / name);
    ASSERT_EQ(other.size(), alone.size()) << name;
    for (std::size_t i = 0; i < alone.size(); ++i)
      for (const auto& [key, value] : alone[i]) {
        if (std::isnan(value)) continue;
        EXPECT_NEAR(other[i].at(key), value, 1e-4 * std::abs(value) + 1e-5) << name << ", " << key;
      }
  }
}

TEST_F(WinRateTraining, GoesOnToTheSameBits) {
  const std::filesystem::path run = policy_.folder.path() / "run", saved = policy_.folder.path() / "saved";
  const std::vector<Numbers> whole = train_judged(configuration(), 2, run, saved);
  const auto file = WinRateEvaluation::reference_file(run);
  const auto written = std::filesystem::last_write_time(file);
  const std::vector<Numbers> rest =
      train_judged(configuration(), 2, run, {}, checkpoint_path(saved, kWinRateSteps / 2));
  EXPECT_EQ(std::filesystem::last_write_time(file), written) << "the reference's answers are kept";
  ASSERT_EQ(rest.size(), 1u);
  for (const auto& [key, value] : whole.back()) {
    if (std::isnan(value)) continue;
    EXPECT_EQ(rest[0].at(key), value) << key;
  }
  // Other settings ask for other answers.
  Configuration longer = configuration();
  longer.evaluation.max_tokens = 8;
  train_judged(longer, 1, run);
  EXPECT_NE(std::filesystem::last_write_time(file), written);
}

TEST_F(WinRateTraining, KeepsTheRulesOfJudging) {
  Configuration c = configuration();
  c.evaluation.judge = {make_judge(first_, "kin", hash_of_model(start_)).string()};
  const auto problem = [&](ErrorKind kind) {
    return error_of(kind, [&] {
      const auto alone = make_single_process();
      const Context context = make_context(c, *alone);
      PreferenceTask(c, context, TaskData::real);
    });
  };
  EXPECT_TRUE(mentions(problem(ErrorKind::usage), {"trained from a model that it is to judge", "kin"}));
  c.evaluation.judge = {make_judge(first_, "all", "a base", "all").string()};
  EXPECT_TRUE(mentions(problem(ErrorKind::usage), {"part `all`", "evaluation.allow_overlap"}));
  c.evaluation.judge = judges_;
  c.evaluation.part = "judge";
  c.evaluation.max_tokens = 1000;
  EXPECT_TRUE(mentions(problem(ErrorKind::data), {"no prompt is left", "too long for the model"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage,
                                [] {
                                  parse_configuration(
                                      "model.type = \"llama\"\nobjective.type = \"dpo\"\n"
                                      "evaluation.prompts = \"p.jsonl\"",
                                      "run.toml");
                                }),
                       {"evaluation.prompts is given without evaluation.judge"}));
}

}  // namespace
}  // namespace bireme::test
