#include "models/decoding/generator.h"

#include <gtest/gtest.h>

#include "core/cpu/cpu_backend.h"
#include "models/published/language_model.h"
#include "tests/support/expect_error.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

/// A small model with random weights of its own, the same on any number of tensor ranks.
struct SmallModel {
  SmallModel(const std::string& type, Communicator& tensor)
      : published(make_language_model({.type = type,
                                       .vocabulary = 50,
                                       .channels = 32,
                                       .layers = 2,
                                       .heads = 2,
                                       .context = 64,
                                       .pattern = "ms"},
                                      tensor)) {
    published->build(*memory, {.gradients = false});
    ParameterSet& parameters = published->model().parameters();
    parameters.initialize(7);
    // The first weights of some are so small that all tokens come out alike.
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i].decays())
        for (float& value : parameters[i].value().values<float>()) value *= 3;
  }
  Generator generator(std::int64_t sequences) const {
    return {*backend, published->model(), sequences, 64, DType::f32};
  }

  std::shared_ptr<Memory> memory = make_host_memory();
  std::unique_ptr<Backend> backend = make_cpu_backend(memory);
  std::unique_ptr<PublishedLanguageModel> published;
};

const GenerateOptions kDraws{.max_tokens = 12, .sampling = {.seed = 3}, .stop_tokens = {}};

class GeneratorTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, GeneratorTest, testing::Values("rwkv", "xlstm", "llama"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(GeneratorTest, WritesTheSameOverTensorRanks) {
  const auto alone = make_single_process();
  const std::vector<TokenList> prompts = {{1, 2, 3}, {4, 5, 6, 7}};
  const auto expected = SmallModel(GetParam(), *alone).generator(2).generate(prompts, kDraws);
  EXPECT_NE(expected[0], expected[1]);
  run_on_ranks(2, [&](Communicator& tensor) {
    EXPECT_EQ(SmallModel(GetParam(), tensor).generator(2).generate(prompts, kDraws), expected);
  });
}

TEST_P(GeneratorTest, GoesOnWhereItStoppedWithOneSequence) {
  const auto alone = make_single_process();
  const SmallModel model(GetParam(), *alone);
  Generator talk = model.generator(1);
  const TokenList first = talk.generate({{1, 2, 3}}, kDraws)[0], then = talk.generate({{9, 8}}, kDraws)[0];
  TokenList all = {1, 2, 3};
  all.insert(all.end(), first.begin(), first.end());
  all.insert(all.end(), {9, 8});
  EXPECT_EQ(model.generator(1).generate({all}, kDraws)[0], then);
}

TEST_P(GeneratorTest, SeveralSequencesCannotGoOn) {
  const auto alone = make_single_process();
  const SmallModel model(GetParam(), *alone);
  Generator two = model.generator(2);
  two.generate({{1}, {2, 3}}, kDraws);
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage,
                                [&] {
                                  two.generate({{1}, {2}}, kDraws);
                                }),
                       {"2 sequences", "cannot go on"}));
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [&] { model.generator(1).generate({{}}, kDraws); }),
                       {"a prompt has no tokens"}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::usage, [&] { model.generator(1).generate({TokenList(60, 1)}, kDraws); }),
               {"72 together", "64"}));
}

}  // namespace
}  // namespace bireme::test
