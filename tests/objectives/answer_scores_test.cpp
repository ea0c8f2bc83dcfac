#include "objectives/answer_scores.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "models/published/language_model.h"

namespace bireme {
namespace {

constexpr std::int64_t kVocabulary = 29;

class AnswerScores : public testing::TestWithParam<const char*> {
 protected:
  AnswerScores() {
    published_ = make_language_model({.type = GetParam(),
                                      .vocabulary = kVocabulary,
                                      .channels = 32,
                                      .layers = 2,
                                      .heads = 4,
                                      .context = 64},
                                     *single_);
    published_->build(*memory_, {.gradients = false});
    published_->model().parameters().initialize(5);
  }
  static AnswerRecord record(std::int64_t prompt, std::initializer_list<std::int64_t> answers) {
    std::int32_t next = static_cast<std::int32_t>(prompt * 7 + 3);
    const auto tokens = [&](std::int64_t count) {
      std::vector<std::int32_t> list;
      for (std::int64_t i = 0; i < count; ++i) list.push_back((next = (next * 5 + 11) % kVocabulary));
      return list;
    };
    AnswerRecord record;
    record.prompt = tokens(prompt);
    for (const std::int64_t answer : answers) record.answers.push_back(tokens(answer));
    return record;
  }
  /// By the logits of a row of its own, in double.
  double alone(const AnswerRecord& record, std::size_t answer) const {
    std::vector<std::int32_t> all = record.prompt;
    all.insert(all.end(), record.answers[answer].begin(), record.answers[answer].end());
    const Tensor tokens(*memory_, {1, std::ssize(all)}, DType::i32);
    std::copy(all.begin(), all.end(), tokens.data<std::int32_t>());
    Tape tape(*backend_, Tape::Mode::inference);
    const Var hidden = published_->model().hidden(tape, {tokens, {}}, {});
    const Tensor logits = published_->model().head().logits(*backend_, hidden.value());
    double sum = 0;
    for (std::size_t t = std::max<std::size_t>(record.prompt.size(), 1); t < all.size(); ++t) {
      const float* z = logits.data<float>() + (static_cast<std::int64_t>(t) - 1) * kVocabulary;
      double total = 0;
      for (std::int64_t v = 0; v < kVocabulary; ++v) total += std::exp(double{z[v]});
      sum += double{z[all[t]]} - std::log(total);
    }
    return sum;
  }

  std::shared_ptr<Memory> memory_ = make_host_memory();
  std::unique_ptr<Backend> backend_ = make_cpu_backend(memory_);
  std::unique_ptr<Communicator> single_ = make_single_process();
  std::unique_ptr<PublishedLanguageModel> published_;
};

TEST_P(AnswerScores, AreThoseOfEachAnswerInARowOfItsOwn) {
  const std::vector<AnswerRecord> records{record(5, {3, 9}), record(1, {1, 20}), record(0, {4, 2}),
                                          record(17, {1, 1}), record(8, {30})};
  const auto scores = score_answers(*backend_, published_->model(), records);
  ASSERT_EQ(scores.size(), records.size());
  for (std::size_t i = 0; i < records.size(); ++i)
    for (std::size_t a = 0; a < records[i].answers.size(); ++a) {
      const double expected = alone(records[i], a);
      // fp32 sums of some tens of products: a few 1e-6 for each token.
      EXPECT_NEAR(scores[i][a].log_probability, expected, 1e-5 * std::abs(expected)) << i << ", " << a;
      EXPECT_EQ(scores[i][a].tokens, std::ssize(records[i].answers[a]) - (records[i].prompt.empty() ? 1 : 0));
    }
}

TEST_P(AnswerScores, DoNotDependOnWhatSharesAPass) {
  const std::vector<AnswerRecord> records{record(5, {3, 9}), record(2, {11, 20}), record(17, {1, 6})};
  const auto together = score_answers(*backend_, published_->model(), records, {.budget = 1000}),
             apart = score_answers(*backend_, published_->model(), records, {.budget = 1});
  for (std::size_t i = 0; i < records.size(); ++i)
    for (std::size_t a = 0; a < 2; ++a)
      EXPECT_NEAR(together[i][a].log_probability, apart[i][a].log_probability,
                  1e-5 * std::abs(apart[i][a].log_probability));
}

INSTANTIATE_TEST_SUITE_P(Models, AnswerScores, testing::Values("llama", "rwkv", "xlstm"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace bireme
