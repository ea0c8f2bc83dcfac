#include "objectives/evaluate/judge.h"

#include <gtest/gtest.h>

#include "objectives/answer_scores.h"
#include "objectives/evaluate/judge_panel.h"
#include "objectives/reference_cache.h"
#include "tests/support/answer_fixture.h"
#include "tests/support/expect_error.h"
#include "tests/support/judge_folder.h"
#include "tests/support/ranks.h"

namespace bireme {
namespace {

using test::error_of;
using test::mentions;

AnswerText text(const std::string& prompt, std::initializer_list<std::string> answers) {
  AnswerText text;
  text.prompt.text = prompt;
  for (const std::string& answer : answers) text.answers.push_back({.text = answer});
  text.scores.resize(answers.size());
  return text;
}

const std::vector<AnswerText> kTexts{text("Who?", {" Ann", " someone else"}),
                                     text("Where is it", {" there.", "x"}), text("Yes or no?", {" yes"})};

TEST(Judges, ScoreTheLastTokenOfEachAnswer) {
  const test::AnswerFixture fixture;
  const auto folder = test::make_judge(fixture, "judge");
  const Judge judge = Judge::open(folder, *fixture.backend, *fixture.single, DType::f32);
  const auto scores = judge.score(kTexts);
  ASSERT_EQ(scores.size(), 3u);
  ASSERT_EQ(scores[0].size(), 2u);
  // The same by the hidden state of the end token, in a row of its own.
  const std::string words = "Who? Ann";
  const Tensor tokens(*fixture.memory, {1, std::ssize(words) + 1}, DType::i32);
  std::copy(words.begin(), words.end(), tokens.data<std::int32_t>());
  tokens.data<std::int32_t>()[words.size()] = 256;
  Tape tape(*fixture.backend, Tape::Mode::inference);
  const Var hidden = fixture.published->model().hidden(tape, {tokens, {}}, {});
  double expected = 0;
  for (int c = 0; c < 32; ++c)
    expected += double{hidden.value().data<float>()[std::ssize(words) * 32 + c]} * test::judge_weight(c);
  EXPECT_NEAR(scores[0][0], expected, 1e-5);
  EXPECT_NE(scores[0][0], scores[0][1]);
}

TEST(Judges, SayTheSameOnAnyNumberOfRanks) {
  const test::AnswerFixture fixture;
  const auto folder = test::make_judge(fixture, "judge");
  const Judge judge = Judge::open(folder, *fixture.backend, *fixture.single, DType::f32);
  const std::vector<double> one = judge_texts(*fixture.single, judge, kTexts);
  ASSERT_EQ(one.size(), 5u);
  std::vector<double> two;
  test::run_on_ranks(2, [&](Communicator& ranks) {
    const auto alone = make_single_process();
    const auto memory = make_host_memory();
    const auto backend = make_cpu_backend(memory);
    const Judge own = Judge::open(folder, *backend, *alone, DType::f32);
    const std::vector<double> scores = judge_texts(ranks, own, kTexts);
    if (ranks.rank() == 1) two = scores;
  });
  ASSERT_EQ(two.size(), one.size());
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(two[i], one[i], 1e-5);
}

TEST(Judges, MayReadLikelihoodsForDebugging) {
  const test::AnswerFixture fixture;
  const auto folder = fixture.exported("model");
  const Judge judge = Judge::open_likelihood(folder, *fixture.backend, *fixture.single, DType::f32);
  EXPECT_TRUE(judge.reads_likelihoods());
  const auto scores = judge.score(kTexts);
  // The same from the model itself: bytes, with the end token behind the answer.
  AnswerRecord record;
  for (const char c : std::string("Who?")) record.prompt.push_back(static_cast<unsigned char>(c));
  record.answers.emplace_back();
  for (const char c : std::string(" Ann")) record.answers[0].push_back(static_cast<unsigned char>(c));
  record.answers[0].push_back(256);
  const auto expected = score_answers(*fixture.backend, fixture.published->model(), {&record, 1}, {});
  EXPECT_NEAR(scores[0][0], expected[0][0].mean(), 1e-5);
  const JudgePanel panel({JudgePanel::parse("likelihood:" + folder.string())}, *fixture.backend, DType::f32);
  EXPECT_TRUE(panel.is_for_debugging());
  EXPECT_FALSE(panel.knows_its_part_only());
  panel.require_independence({}, false);
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::usage, [&] { panel.require_independence({hash_of_model(folder)}, true); }),
               {"model that it is to judge"}));
}

TEST(Judges, RefuseWhatIsNoJudge) {
  const test::AnswerFixture fixture;
  const auto folder = fixture.exported("model");
  EXPECT_FALSE(holds_judge(folder));
  EXPECT_TRUE(mentions(error_of(ErrorKind::checkpoint,
                                [&] { Judge::open(folder, *fixture.backend, *fixture.single, DType::f32); }),
                       {"no judge", "objective.type = judge"}));
  fixture.folder.write("model/judge.json", "{\"format\": \"bireme judge\", \"seed\": 1}");
  EXPECT_TRUE(mentions(error_of(ErrorKind::checkpoint, [&] { JudgeDescription::read(folder); }),
                       {"damaged", "judge.json"}));
}

TEST(SampledAnswers, DependNeitherOnTheBatchNorOnRanks) {
  const test::AnswerFixture fixture;
  const auto tokenizer = open_tokenizer("byte");
  std::vector<Question> questions;
  for (int i = 0; i < 7; ++i) {
    Question& question = questions.emplace_back();
    question.number = 10 * i;
    question.tokens = tokenizer->encode("prompt " + std::string(static_cast<std::size_t>(i % 3), 'x'));
  }
  const auto sample = [&](Communicator& ranks, const LanguageModel& model, const Backend& backend,
                          std::int64_t batch) {
    std::vector<std::string> texts;
    for (const SampledAnswer& one :
         sample_answers(backend, ranks, model, *tokenizer, questions,
                        {.max_tokens = 6, .batch_size = batch, .stop_tokens = {256}})) {
      texts.push_back(one.text);
      EXPECT_LE(one.tokens.size(), 6u);
      EXPECT_EQ(one.ended_by_limit, one.tokens.size() == 6);
    }
    return texts;
  };
  const auto one = sample(*fixture.single, fixture.published->model(), *fixture.backend, 1);
  EXPECT_EQ(sample(*fixture.single, fixture.published->model(), *fixture.backend, 4), one);
  EXPECT_NE(one[0], one[3]) << "equal prompts of other numbers are answered otherwise";
  std::vector<std::string> two;
  test::run_on_ranks(2, [&](Communicator& ranks) {
    const test::AnswerFixture own;
    const auto texts = sample(ranks, own.published->model(), *own.backend, 4);
    if (ranks.rank() == 1) two = texts;
  });
  EXPECT_EQ(two, one);
}

}  // namespace
}  // namespace bireme
