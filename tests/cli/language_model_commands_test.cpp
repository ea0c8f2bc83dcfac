#include <gtest/gtest.h>

#include "tests/cli/language_runs.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

using LanguageModelCommands = LanguageRuns;

TEST_F(LanguageModelCommands, DrawTheDecaysOfAnRwkv) {
  const Outcome outcome =
      run_program("plot decay --model " + run_of("rwkv") + " --output " + path("decay.png") + " --json");
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  const nlohmann::json result = json_of(outcome);
  ASSERT_EQ(result["layers"].size(), 2U);
  // Decays begin at exp(-exp(-5)) and lower: 148 tokens.
  EXPECT_NEAR(result["layers"][1]["longest_tokens"].get<double>(), 148.4, 2);
  EXPECT_EQ(folder_.read("decay.png").substr(1, 3), "PNG");
}

TEST_F(LanguageModelCommands, DrawTheWayOfAFactThroughAnRwkv) {
  const std::string words = "plot propagation --model " + run_of("rwkv") +
                            " --prompt 'the oars of ship' --output " + path("way.svg");
  const nlohmann::json word = json_of(run_program(words + " --subject oars --json"));
  EXPECT_EQ(word["subject"], (std::vector<int>{4, 8}));
  EXPECT_EQ(word["tokens"].size(), 16U);
  EXPECT_EQ(word["tokens"][3], "\u2423");
  ASSERT_EQ(word["probability"].size(), 2U);
  // Putting back the last position after the last block leaves nothing of the noise.
  EXPECT_NEAR(word["probability"][1][15].get<double>(), word["clean_probability"].get<double>(), 1e-6);
  // Before the subject, nothing was spoilt.
  EXPECT_NEAR(word["probability"][0][2].get<double>(), word["corrupted_probability"].get<double>(), 1e-6);
  EXPECT_EQ(json_of(run_program(words + " --token 9 --answer row --json"))["answer"], "r");
  EXPECT_EQ(json_of(run_program(words + " --json"))["subject"], (std::vector<int>{0, 3})) << "the first word";
  EXPECT_NE(folder_.read("way.svg").find("<svg"), std::string::npos);

  const Outcome absent = run_program(words + " --subject Oars");
  EXPECT_EQ(absent.code, 2);
  EXPECT_TRUE(mentions(absent.errors, {"`Oars` does not appear in the prompt"}));
  EXPECT_EQ(run_program(words + " --token 16").code, 2) << "beyond the prompt";
  EXPECT_EQ(run_program(words + " --token 1 --subject oars").code, 2) << "one or the other";
}

TEST_F(LanguageModelCommands, PicturesOfAnRwkvRefuseOthers) {
  for (const std::string command : {"plot decay", "plot propagation --prompt a"}) {
    const Outcome other = run_program(command + " --model " + run_of("llama") + " --output " + path("a.png"));
    EXPECT_EQ(other.code, 2);
    EXPECT_TRUE(mentions(other.errors, {"this picture is of an RWKV", "model.type rwkv"}));
    const Outcome ending = run_program(command + " --model " + run_of("rwkv") + " --output " + path("a.bmp"));
    EXPECT_EQ(ending.code, 2);
    EXPECT_TRUE(mentions(ending.errors, {"a.bmp", ".png, .svg or .pdf"}));
  }
}

TEST_F(LanguageModelCommands, TimeDecodingOfAnyLanguageModel) {
  for (const std::string type : {"rwkv", "xlstm", "llama"}) {
    SCOPED_TRACE(type);
    const Outcome outcome =
        run_program("bench decode --model " + run_of(type) + " --sequences 1,3 --tokens 4 --json");
    ASSERT_EQ(outcome.code, 0) << outcome.errors;
    const nlohmann::json result = json_of(outcome);
    ASSERT_EQ(result["runs"].size(), 2U);
    EXPECT_EQ(result["runs"][1]["sequences"], 3);
    EXPECT_GT(result["runs"][1]["tokens_per_second"], 0);
    // The bound counts all but the embedding's 257 rows, which a step reads one of.
    EXPECT_EQ(result["weight_bytes"].get<std::int64_t>(),
              4 * (result["parameters"].get<std::int64_t>() - 257 * 16));
  }
  // RWKV keeps 5 numbers a channel and layer.
  const nlohmann::json made_up = json_of(run_program(
      "bench decode --model.type rwkv --model.embed_dim 32 --model.depth 3 --tokens 2 --sequences 2 --json"));
  EXPECT_EQ(made_up["runs"][0]["state_bytes_per_sequence"], 3 * 5 * 32 * 4);
  EXPECT_TRUE(mentions(run_program("bench decode").errors, {"model.type is \"vit\"", "pass --model M"}));
  const Outcome both = run_program("bench decode --model " + run_of("rwkv") + " --model.depth 3");
  EXPECT_EQ(both.code, 2);
  EXPECT_TRUE(mentions(both.errors, {"--model.depth", "leave one of them out"}));
}

}  // namespace
}  // namespace bireme::test
