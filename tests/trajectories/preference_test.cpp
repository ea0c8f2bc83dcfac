#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "core/data/answer_writer.h"
#include "core/tensor/random.h"
#include "launch/preference_task.h"
#include "launch/trainer.h"
#include "launch/training_state.h"
#include "tests/support/answers.h"
#include "tests/support/expect_error.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace bireme::test {
namespace {

constexpr std::int64_t kPreferenceSteps = 4, kBatch = 4, kVocabulary = 257;  // of the byte tokenizer

/// Twenty records of random tokens, every third with the prompt of the one before.
void write_answers(const std::filesystem::path& folder, AnswerKind kind, bool equal_scores = false) {
  AnswerManifest manifest;
  manifest.answer_kind = kind;
  manifest.vocabulary = kVocabulary;
  manifest.max_length = 64;
  AnswerWriter writer(
      {.output = folder, .shard_size = 8, .manifest = manifest, .tokenizer = open_tokenizer("byte")});
  std::vector<AnswerRecord> records = made_up_pairs(20, 12, 5, kVocabulary, 7);
  for (std::size_t i = 0; i < records.size(); ++i) {
    AnswerRecord& record = records[i];
    if (i % 3 == 2) {
      record.prompt = records[i - 1].prompt;
      record.prompt_key = records[i - 1].prompt_key;
    }
    if (i == 4) record.prompt.clear();
    if (kind != AnswerKind::pairs) record.answers.resize(1);
    record.is_cut.assign(record.answers.size(), false);
    record.scores.assign(record.answers.size(), equal_scores ? 1.0 : static_cast<double>(i % 5));
    if (kind == AnswerKind::feedback) record.label = i % 2 == 0;
    writer.append(record);
  }
  writer.finish({});
}

struct PreferenceLayout {
  int ranks, tensor;
  std::int64_t accumulate = 1, zero = 0;
};

/// What is trained: the objective with its settings, as a file has them.
struct Aim {
  std::string name, model, settings;
  AnswerKind kind = AnswerKind::pairs;
  bool whole_step = false;
};
void PrintTo(const Aim& aim, std::ostream* out) { *out << aim.name << " of " << aim.model; }

class PreferenceTaskTraining : public testing::TestWithParam<Aim> {
 protected:
  PreferenceTaskTraining() {
    write_answers(folder_.path() / "data", GetParam().kind);
    write_answers(folder_.path() / "held_out", AnswerKind::pairs);
  }
  Configuration configuration_of(const PreferenceLayout& layout) const {
    const Aim& aim = GetParam();
    Configuration c = parse_configuration("model.type = \"" + aim.model + "\"\n" + aim.settings, "test");
    c.model.embed_dim = 16;
    c.model.depth = 2;
    c.model.heads = 2;
    c.model.pattern = "ms";
    c.data.path = (folder_.path() / "data").string();
    c.data.validation = (folder_.path() / "held_out").string();
    c.data.batch_size = kBatch;
    c.schedule.warmup_steps = 1;
    // A value function begins at zero, and what stands behind it with hardly a gradient; likes and dislikes
    // cancel. A small epsilon would turn the rounding of such sums into whole steps.
    c.optimizer.epsilon = 1e-2;
    c.optimizer.learning_rate = 1e-3;
    c.parallel.tensor = layout.tensor;
    c.parallel.accumulate = layout.accumulate;
    c.parallel.zero = layout.zero;
    c.run.steps = kPreferenceSteps;
    c.run.evaluate_every = 2;
    c.run.threads = 1;
    c.run.timeout_seconds = 0;
    return c;
  }
  TemporaryFolder folder_;
};

/// The losses of the steps from `start` on and, last, the ranking accuracy of averages.
std::vector<double> train_preferences(const Configuration& configuration, int ranks,
                                      const std::filesystem::path& save = {},
                                      const std::filesystem::path& resume = {}) {
  std::vector<double> numbers;
  std::mutex mutex;
  run_on_ranks(ranks, [&](Communicator& world) {
    const Context context = make_context(configuration, world);
    PreferenceTask task(configuration, context, TaskData::real);
    Trainer trainer(configuration, context, task.objective(), task.steps());
    const TrainingState state{context, task, trainer.optimizer(), to_toml(configuration),
                              trainer.companion_optimizer()};
    const std::int64_t start = resume.empty() ? 0 : load_training_state(state, resume);
    task.start(start);
    std::vector<double> own;
    for (std::int64_t step = start; step < kPreferenceSteps; ++step) {
      const StepReport report = trainer.step(step, [&] { return task.next(); });
      EXPECT_FALSE(report.skipped);
      own.push_back(report.loss);
      if (!save.empty() && step + 1 == kPreferenceSteps / 2) save_training_state(state, save, step + 1);
    }
    for (const auto& [name, value] : task.objective().terms()) EXPECT_TRUE(std::isfinite(value)) << name;
    own.push_back(task.evaluate(false).numbers.at(1).second);
    const std::scoped_lock lock(mutex);
    if (world.rank() == 0) numbers = own;
  });
  return numbers;
}

const std::string kPreamble = "objective.type = ";
INSTANTIATE_TEST_SUITE_P(
    Aims, PreferenceTaskTraining,
    testing::Values(Aim{"sft", "llama", kPreamble + "\"sft\"", AnswerKind::sft},
                    Aim{"sft_liked", "rwkv", kPreamble + "\"sft\"\nobjective.nll_answers = \"liked\"",
                        AnswerKind::feedback},
                    Aim{"orpo", "llama", kPreamble + "\"orpo\""},
                    Aim{"orpo_by_record", "rwkv",
                        kPreamble + "\"orpo\"\nobjective.nll_reduction = \"sequence\""},
                    Aim{"dpo", "xlstm", kPreamble + "\"dpo\""}, Aim{"ipo", "llama", kPreamble + "\"ipo\""},
                    Aim{"simpo", "rwkv", kPreamble + "\"simpo\""},
                    Aim{"kto", "llama", kPreamble + "\"kto\"", AnswerKind::feedback},
                    Aim{"kto_dataset", "rwkv", kPreamble + "\"kto\"\nobjective.kl_pairing = \"dataset\"",
                        AnswerKind::feedback},
                    Aim{"dro", "llama", kPreamble + "\"dro\"", AnswerKind::feedback},
                    Aim{"dro_rwkv", "rwkv", kPreamble + "\"dro\"", AnswerKind::feedback},
                    Aim{"dro_shared", "xlstm",
                        kPreamble + "\"dro\"\nobjective.value = \"shared\"\nobjective.value_warmup_steps = 1",
                        AnswerKind::feedback},
                    Aim{"dro_constant", "llama", kPreamble + "\"dro\"\nobjective.value = \"constant\"",
                        AnswerKind::feedback},
                    Aim{"dro_group", "llama", kPreamble + "\"dro\"\nobjective.variant = \"group\"",
                        AnswerKind::feedback, true}),
    [](const auto& info) { return info.param.name; });

// Sums in another order differ by rounding, which four steps of Adam carry on.
constexpr double kPreferenceRounding = 1e-5;

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected,
                 const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i)
    EXPECT_NEAR(actual[i], expected[i], kPreferenceRounding * std::abs(expected[i]) + 1e-7)
        << what << ", step " << i;
}

TEST_P(PreferenceTaskTraining, FollowsOneTrajectoryOnEveryLayout) {
  const std::vector<double> alone = train_preferences(configuration_of({1, 1}), 1);
  ASSERT_EQ(alone.size(), std::size_t{kPreferenceSteps + 1});
  EXPECT_NE(alone[0], alone[kPreferenceSteps - 1]);
  for (const PreferenceLayout& layout : {PreferenceLayout{1, 1, 2}, PreferenceLayout{2, 1, 1, 1},
                                         PreferenceLayout{2, 2}, PreferenceLayout{4, 2}}) {
    if (layout.accumulate > 1 && GetParam().whole_step) continue;
    expect_near(train_preferences(configuration_of(layout), layout.ranks), alone,
                std::to_string(layout.ranks) + " ranks, tensor " + std::to_string(layout.tensor));
  }
  Configuration apart = configuration_of({1, 1});
  apart.objective.share_prompts = false;
  expect_near(train_preferences(apart, 1), alone, "prompts of their own");
}

TEST_P(PreferenceTaskTraining, GoesOnToTheSameBitsAndOnAnotherLayout) {
  const Configuration configuration = configuration_of({2, 1});
  const std::filesystem::path checkpoints = folder_.path() / "checkpoints";
  const std::vector<double> whole = train_preferences(configuration, 2, checkpoints);
  const std::filesystem::path saved = checkpoint_path(checkpoints, kPreferenceSteps / 2);
  const std::vector<double> rest(whole.begin() + kPreferenceSteps / 2, whole.end());
  EXPECT_EQ(train_preferences(configuration, 2, {}, saved), rest);
  expect_near(train_preferences(configuration_of({2, 2}), 2, {}, saved), rest, "resumed on two tensor ranks");
}

/// A term of the first step.
double term_of_first_step(const Configuration& configuration, int ranks, const std::string& name) {
  double value = -1;
  std::mutex mutex;
  run_on_ranks(ranks, [&](Communicator& world) {
    const Context context = make_context(configuration, world);
    PreferenceTask task(configuration, context, TaskData::real);
    Trainer trainer(configuration, context, task.objective(), task.steps());
    task.start(0);
    trainer.step(0, [&] { return task.next(); });
    for (const auto& [term, found] : task.objective().terms()) {
      const std::scoped_lock lock(mutex);
      if (world.rank() == 0 && term == name) value = found;
    }
  });
  return value;
}

TEST_P(PreferenceTaskTraining, MeasuresTheShareOfTheOddsRatioOverTheWholeStep) {
  if (!GetParam().name.starts_with("orpo")) GTEST_SKIP() << "it has no odds ratio";
  const double alone = term_of_first_step(configuration_of({1, 1}), 1, "or_share");
  EXPECT_GT(alone, 0);
  for (const PreferenceLayout& layout : {PreferenceLayout{1, 1, 2}, PreferenceLayout{1, 1, 4},
                                         PreferenceLayout{2, 1, 2}, PreferenceLayout{2, 2, 2}})
    EXPECT_NEAR(term_of_first_step(configuration_of(layout), layout.ranks, "or_share"), alone, 1e-5 * alone)
        << layout.ranks << " ranks, tensor " << layout.tensor << ", " << layout.accumulate << " parts";
}

TEST_P(PreferenceTaskTraining, MeasuresTheVarianceOfTheGradientOverAllRanks) {
  const std::string& name = GetParam().name;
  if (name != "dro" && name != "dro_rwkv") GTEST_SKIP() << "it has no value function, or not yet";
  for (const std::string term :
       {"policy_variance_without_value", "policy_variance_without_value_error", "value_explained_ahead"}) {
    const auto measured = [&](const PreferenceLayout& layout) {
      Configuration c = configuration_of(layout);
      c.objective.variance_every = 1;
      c.objective.variance_answers = 8;  // of the next two steps
      return term_of_first_step(c, layout.ranks, term);
    };
    const double alone = measured({1, 1});
    EXPECT_NE(alone, -1) << term;
    for (const PreferenceLayout& layout :
         {PreferenceLayout{1, 1, 2}, PreferenceLayout{2, 1}, PreferenceLayout{2, 2}, PreferenceLayout{4, 2}})
      EXPECT_NEAR(measured(layout), alone, 1e-4 * std::abs(alone) + 1e-6)
          << term << " on " << layout.ranks << " ranks, tensor " << layout.tensor;
  }
}

std::string refusal(const std::string& settings, const std::filesystem::path& data, ErrorKind kind) {
  return error_of(kind, [&] {
    Configuration c = parse_configuration("model.type = \"llama\"\n" + settings, "test");
    c.model.embed_dim = 16;
    c.data.path = data.string();
    c.run.threads = 1;
    c.run.timeout_seconds = 0;
    const auto alone = make_single_process();
    const Context context = make_context(c, *alone);
    PreferenceTask(c, context, TaskData::real);
  });
}

TEST(PreferenceTask, RefusesDataThatDoesNotFit) {
  const TemporaryFolder folder;
  write_answers(folder.path() / "pairs", AnswerKind::pairs);
  write_answers(folder.path() / "flat", AnswerKind::feedback, true);
  EXPECT_TRUE(mentions(refusal("objective.type = \"dro\"", folder.path() / "pairs", ErrorKind::data),
                       {"prepare feedback"}));
  EXPECT_TRUE(mentions(refusal("objective.type = \"orpo\"", folder.path() / "flat", ErrorKind::data),
                       {"prepare pairs"}));
  EXPECT_TRUE(mentions(refusal("objective.type = \"dro\"", folder.path() / "flat", ErrorKind::data),
                       {"all scores are equal"}));
}

TEST(PreferenceTask, ImitatesLikedAnswersAlone) {
  const TemporaryFolder folder;
  write_answers(folder.path() / "feedback", AnswerKind::feedback);
  write_answers(folder.path() / "pairs", AnswerKind::pairs);
  Configuration c = parse_configuration(
      "model.type = \"llama\"\nobjective.type = \"sft\"\nobjective.nll_answers = \"liked\"", "test");
  c.data.path = (folder.path() / "feedback").string();
  c.data.batch_size = kBatch;
  const auto records_of = [&] {
    const auto data = AnswerTrainingData::open(c, {AnswerKind::feedback});
    std::multiset<std::int64_t> records;
    for (std::int64_t step = 0; step < data->sampler.iterations_per_epoch(); ++step)
      for (const std::int64_t record : data->sampler.share(step, 0, 1).records) {
        if (c.objective.nll_answers == "liked") {
          EXPECT_TRUE(data->dataset.label(record)) << record;
        }
        records.insert(record);
      }
    return records;
  };
  const std::multiset<std::int64_t> liked = records_of();
  EXPECT_EQ(liked.size(), 8U) << "two batches of the ten with a like";
  EXPECT_EQ(std::set(liked.begin(), liked.end()).size(), 8U);
  c.objective.nll_answers = "all";
  EXPECT_EQ(records_of().size(), 20U);
  EXPECT_TRUE(mentions(refusal("objective.type = \"sft\"\nobjective.nll_answers = \"liked\"",
                               folder.path() / "pairs", ErrorKind::usage),
                       {"pairs", "prepare feedback", "objective.nll_answers"}));
  EXPECT_TRUE(
      mentions(refusal("objective.type = \"sft\"\nobjective.nll_answers = \"liked\"\ndata.batch_size = 11",
                       folder.path() / "feedback", ErrorKind::usage),
               {"10 of 20 answers are liked", "objective.nll_answers"}));
}

TEST(PreferenceTask, ContradictionsAreNamed) {
  const auto problem = [](const std::string& settings) {
    return error_of(ErrorKind::usage, [&] {
      parse_configuration("model.type = \"llama\"\nobjective.type = \"dro\"\n" + settings, "run.toml");
    });
  };
  EXPECT_TRUE(mentions(problem("objective.variant = \"batch\"\nparallel.accumulate = 2"),
                       {"objective.variant", "parallel.accumulate"}));
  EXPECT_TRUE(mentions(problem("objective.variant = \"batch\"\ndata.batch_size = 1"), {"data.batch_size"}));
  EXPECT_TRUE(mentions(problem("data.documents_apart = true"), {"objective.type", "no meaning"}));
}

}  // namespace
}  // namespace bireme::test
