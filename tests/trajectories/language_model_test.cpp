#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "launch/language_task.h"
#include "launch/trainer.h"
#include "launch/training_state.h"
#include "tests/support/made_up_text.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace bireme::test {
namespace {

constexpr std::int64_t kSteps = 4;

struct Layout {
  int ranks, tensor;
  std::int64_t accumulate = 1, zero = 0;
};

Configuration configuration_of(const std::string& type, const std::filesystem::path& text,
                               const Layout& layout) {
  Configuration c = parse_configuration("model.type = \"" + type + "\"", "test");
  c.model.embed_dim = 32;
  c.model.depth = 2;
  c.model.heads = 2;
  c.model.pattern = "ms";
  c.data.path = text.string();
  c.data.batch_size = 4;
  c.data.sequence_length = 24;
  c.data.documents_apart = true;
  c.schedule.warmup_steps = 1;
  c.parallel.tensor = layout.tensor;
  c.parallel.accumulate = layout.accumulate;
  c.parallel.zero = layout.zero;
  c.run.steps = kSteps;
  c.run.evaluate_every = 0;
  c.run.threads = 1;
  c.run.timeout_seconds = 0;
  return c;
}

/// The loss of each step; saves the state after half of them where `save` names a folder.
std::vector<double> losses_of(const Configuration& configuration, int ranks,
                              const std::filesystem::path& save = {}) {
  std::vector<double> losses;
  std::mutex mutex;
  run_on_ranks(ranks, [&](Communicator& world) {
    const Context context = make_context(configuration, world);
    LanguageTask task(configuration, context, TaskData::real);
    Trainer trainer(configuration, context, task.objective(), task.steps());
    const TrainingState state{context, task, trainer.optimizer(), to_toml(configuration)};
    task.start(0);
    for (std::int64_t step = 0; step < kSteps; ++step) {
      const StepReport report = trainer.step(step, [&] { return task.next(); });
      EXPECT_FALSE(report.skipped);
      if (!save.empty() && step + 1 == kSteps / 2) save_training_state(state, save, step + 1);
      const std::scoped_lock lock(mutex);
      if (world.rank() == 0) losses.push_back(report.loss);
    }
  });
  return losses;
}

/// The losses after the saved half, on a layout of its own.
std::vector<double> resumed_losses(const Configuration& configuration, int ranks,
                                   const std::filesystem::path& saved) {
  std::vector<double> losses;
  std::mutex mutex;
  run_on_ranks(ranks, [&](Communicator& world) {
    const Context context = make_context(configuration, world);
    LanguageTask task(configuration, context, TaskData::real);
    Trainer trainer(configuration, context, task.objective(), task.steps());
    const TrainingState state{context, task, trainer.optimizer(), to_toml(configuration)};
    const std::int64_t start = load_training_state(state, saved);
    task.start(start);
    for (std::int64_t step = start; step < kSteps; ++step) {
      const StepReport report = trainer.step(step, [&] { return task.next(); });
      const std::scoped_lock lock(mutex);
      if (world.rank() == 0) losses.push_back(report.loss);
    }
  });
  return losses;
}

class LanguageModelTraining : public testing::TestWithParam<std::string> {
 protected:
  LanguageModelTraining() { write_made_up_text(text_, {.documents = 40, .shortest = 20}); }
  TemporaryFolder folder_;
  std::filesystem::path text_ = folder_.path() / "text";
};
INSTANTIATE_TEST_SUITE_P(Models, LanguageModelTraining, testing::Values("rwkv", "xlstm", "llama"),
                         [](const auto& info) { return info.param; });

// Sums in another order differ by rounding, which four steps of Adam carry on.
constexpr double kRounding = 1e-5;

TEST_P(LanguageModelTraining, FollowsOneTrajectoryOnEveryLayout) {
  const std::vector<double> alone = losses_of(configuration_of(GetParam(), text_, {1, 1}), 1);
  ASSERT_EQ(alone.size(), std::size_t{kSteps});
  for (const Layout& layout : {Layout{1, 1, 2}, Layout{2, 1, 1, 1}, Layout{2, 2}, Layout{4, 2}}) {
    const std::vector<double> losses = losses_of(configuration_of(GetParam(), text_, layout), layout.ranks);
    ASSERT_EQ(losses.size(), alone.size());
    for (std::size_t i = 0; i < losses.size(); ++i)
      EXPECT_NEAR(losses[i], alone[i], kRounding * alone[i])
          << layout.ranks << " ranks, tensor " << layout.tensor << ", step " << i;
  }
}

TEST_P(LanguageModelTraining, GoesOnToTheSameBitsAndOnAnotherLayout) {
  const Layout two{2, 1};
  const Configuration configuration = configuration_of(GetParam(), text_, two);
  const std::filesystem::path checkpoints = folder_.path() / "checkpoints";
  const std::vector<double> whole = losses_of(configuration, 2, checkpoints);
  const std::filesystem::path saved = checkpoint_path(checkpoints, kSteps / 2);
  const std::vector<double> rest(whole.begin() + kSteps / 2, whole.end());
  EXPECT_EQ(resumed_losses(configuration, 2, saved), rest);
  const std::vector<double> elsewhere = resumed_losses(configuration_of(GetParam(), text_, {2, 2}), 2, saved);
  ASSERT_EQ(elsewhere.size(), rest.size());
  for (std::size_t i = 0; i < rest.size(); ++i) EXPECT_NEAR(elsewhere[i], rest[i], kRounding * rest[i]);
}

}  // namespace
}  // namespace bireme::test
