#include "objectives/judge_objective.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "core/tensor/random.h"
#include "models/published/language_model.h"
#include "objectives/evaluate/judge.h"
#include "objectives/evaluate/win_rate.h"
#include "tests/support/answer_fixture.h"

namespace bireme {
namespace {

constexpr std::int64_t kJudgeVocabulary = 29, kChannels = 16;

class JudgeObjectives : public testing::TestWithParam<const char*> {
 protected:
  /// A model in fp64, so that differences of the loss tell its slopes.
  JudgeObjectives() {
    published_ = make_language_model({.type = GetParam(),
                                      .vocabulary = kJudgeVocabulary,
                                      .channels = kChannels,
                                      .layers = 2,
                                      .heads = 2,
                                      .context = 64},
                                     *single_);
    head_ = &parameters().add({.name = "score.weight",
                               .shape = {1, kChannels},
                               .initial = {.law = Initializer::Law::normal, .value = 0.3}});
    published_->build(*memory_, {.master = DType::f64, .gradients = true});
    parameters().initialize(3);
    objective_ = std::make_unique<JudgeObjective>(JudgeObjective::Options{.type = DType::f64, .centre = 0.05},
                                                  mesh_, published_->model(), *head_);
  }
  ParameterSet& parameters() { return published_->model().parameters(); }

  static std::vector<AnswerRecord> pairs(int count) {
    RandomStream random(7, 0, RandomUse::test);
    std::vector<AnswerRecord> pairs(static_cast<std::size_t>(count));
    const auto tokens = [&](std::int64_t length) {
      std::vector<std::int32_t> list;
      for (std::int64_t i = 0; i < length; ++i)
        list.push_back(static_cast<std::int32_t>(random.below(kJudgeVocabulary)));
      return list;
    };
    for (int i = 0; i < count; ++i) {
      AnswerRecord& pair = pairs[static_cast<std::size_t>(i)];
      pair.number = i;
      pair.prompt = tokens(1 + i % 5);
      pair.answers = {tokens(1 + i % 4), tokens(3)};
    }
    return pairs;
  }
  /// The loss of these pairs as a step; gradients too, when asked for.
  double loss(const std::vector<std::vector<AnswerRecord>>& parts, bool with_gradients) {
    std::int64_t count = 0;
    for (const auto& part : parts) count += std::ssize(part);
    objective_->begin(0);
    if (with_gradients) parameters().begin_gradients();
    for (const auto& part : parts) {
      TokenBatch batch = judge_batch(part, *memory_);
      batch.global_count = count;
      Tape tape(*backend_);
      const Var value = objective_->compute(tape, batch);
      if (with_gradients) tape.backward(value, &parameters());
    }
    return objective_->reduce();
  }
  std::vector<double> gradients() {
    const std::span<const double> flat = parameters().flat_gradients().values<double>();
    return {flat.begin(), flat.end()};
  }

  std::shared_ptr<Memory> memory_ = make_host_memory();
  std::unique_ptr<Backend> backend_ = make_cpu_backend(memory_);
  std::unique_ptr<Communicator> single_ = make_single_process();
  Mesh mesh_{*single_, 1};
  std::unique_ptr<PublishedLanguageModel> published_;
  Parameter* head_;
  std::unique_ptr<JudgeObjective> objective_;
};

TEST_P(JudgeObjectives, SlopesAreThoseOfTheLoss) {
  const auto step = pairs(5);
  loss({step}, true);
  const std::vector<double> gradient = gradients();
  const std::span<double> values = parameters().flat_values().values<double>();
  // Along random directions over all parameters. RWKV's embeddings begin at 1e-4, and a norm follows them:
  // the step must be small beside that.
  constexpr double epsilon = 1e-8;
  for (std::uint64_t direction = 0; direction < 3; ++direction) {
    RandomStream random(direction, 1, RandomUse::test);
    std::vector<double> v(values.size());
    double slope = 0;
    for (std::size_t i = 0; i < v.size(); ++i) {
      v[i] = random.uniform() - 0.5;
      slope += v[i] * gradient[i];
    }
    const auto moved = [&](double by) {
      for (std::size_t i = 0; i < v.size(); ++i) values[i] += by * v[i];
    };
    moved(epsilon);
    const double above = loss({step}, false);
    moved(-2 * epsilon);
    const double below = loss({step}, false);
    moved(epsilon);
    const double difference = (above - below) / (2 * epsilon);
    EXPECT_NEAR(slope, difference, 1e-6 * std::max(1.0, std::abs(difference)));
    EXPECT_GT(std::abs(difference), 1e-4) << "a slope of nothing would prove nothing";
  }
}

TEST_P(JudgeObjectives, PartsOfAStepAddUpToIt) {
  const auto step = pairs(6);
  const double whole = loss({step}, true);
  const std::vector<double> gradient = gradients();
  const double parts = loss({{step.begin(), step.begin() + 2}, {step.begin() + 2, step.end()}}, true);
  EXPECT_NEAR(parts, whole, 1e-12);
  const std::vector<double> added = gradients();
  double largest = 0;
  for (const double one : gradient) largest = std::max(largest, std::abs(one));
  for (std::size_t i = 0; i < gradient.size(); ++i)
    ASSERT_NEAR(added[i], gradient[i], 1e-12 * std::max(1.0, largest)) << i;
  EXPECT_GE(objective_->terms().front().second, 0);
  EXPECT_LE(objective_->terms().front().second, 1);
}

TEST_P(JudgeObjectives, AHeadBesideTheModelIsNoPartOfItsFolder) {
  const test::AnswerFixture plain(GetParam());
  const std::filesystem::path folder = plain.exported("plain");
  const std::unique_ptr<PublishedLanguageModel> model = make_language_model(
      {.type = GetParam(), .vocabulary = 257, .channels = 32, .layers = 2, .heads = 4, .context = 256},
      *single_);
  model->model().parameters().add({.name = "score.weight", .shape = {1, 32}});
  model->build(*memory_, {});
  model->import(folder);
  const ParameterSet &own = plain.published->model().parameters(), &taken = model->model().parameters();
  ASSERT_EQ(taken.size(), own.size() + 1);
  for (std::size_t i = 0; i < own.size(); ++i)
    EXPECT_TRUE(std::ranges::equal(taken[i].value().values<float>(), own[i].value().values<float>()))
        << own[i].name();
  for (const PublishedTensor& tensor : model->tensors()) EXPECT_NE(tensor.parameter, "score.weight");
}

INSTANTIATE_TEST_SUITE_P(Models, JudgeObjectives, testing::Values("llama", "rwkv", "xlstm"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace bireme
