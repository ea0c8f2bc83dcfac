#include "launch/configuration.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/error.h"
#include "launch/configuration_keys.h"

namespace bireme {
namespace {

const std::filesystem::path kRepository = std::filesystem::path(BIREME_TEST_FOLDER).parent_path();

std::string read_text(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// The message of the usage error that reading `toml` and `overrides` must end in.
std::string failure(const std::string& toml, const std::vector<Override>& overrides = {}) {
  try {
    parse_configuration(toml, "run.toml", overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2) << error.what();
    EXPECT_FALSE(error.remedy().empty()) << error.what();
    return error.what();
  }
  return "";
}

void expect_same_values(const Configuration& a, const Configuration& b) { EXPECT_EQ(to_toml(a), to_toml(b)); }

// Scripts and checkpoints depend on the names: a key may be added here, never renamed or retyped in silence.
TEST(Configuration, KeysAreTheFrozenList) {
  std::string actual;
  for (const Key& key : key_table())
    actual += std::string(key.name) + ": " + std::string(type_name(key.value_in(Configuration{}))) + "\n";
  EXPECT_EQ(actual, read_text(kRepository / "tests/launch/keys.txt"));
}

TEST(Configuration, EveryKeyHasOneSentenceOfHelpAndADefaultWithinItsRange) {
  const Configuration defaults;
  for (const Key& key : key_table()) {
    EXPECT_TRUE(key.help.ends_with('.')) << key.name;
    EXPECT_NO_THROW(parse_configuration("", "", std::vector<Override>{})) << key.name;
    const ConstantPlace value = key.value_in(defaults);
    if (const auto* integer = std::get_if<const std::int64_t*>(&value)) {
      EXPECT_TRUE(key.allowed.contains(static_cast<double>(**integer))) << key.name;
    }
    if (const auto* number = std::get_if<const double*>(&value)) {
      EXPECT_TRUE(key.allowed.contains(**number)) << key.name;
    }
  }
}

TEST(Configuration, ReferencePageIsWhatTheProgramPrints) {
  const std::string generated = configuration_reference();
  const auto copy = std::filesystem::path(testing::TempDir()) / "configuration.md";
  std::ofstream(copy) << generated;
  EXPECT_EQ(generated, read_text(kRepository / "docs/configuration.md"))
      << "copy " << copy << " over docs/configuration.md";
}

TEST(Configuration, RecipesLoadAndFashionMnistIsTheDefault) {
  for (const char* name : {"fashion_mnist", "cifar", "vit_tiny_32", "vit_small_224", "vit_base_224"}) {
    SCOPED_TRACE(name);
    const Configuration recipe = load_configuration(kRepository / "configs" / (std::string(name) + ".toml"));
    expect_same_values(parse_configuration(to_toml(recipe), "resolved"), recipe);
  }
  expect_same_values(load_configuration(kRepository / "configs/fashion_mnist.toml"), Configuration{});
}

TEST(Configuration, ResolvedTextReadsBackToTheSameBits) {
  Configuration configuration;
  configuration.optimizer.learning_rate = 1.0 / 3;
  configuration.optimizer.epsilon = 5e-324;  // the smallest double: any rounding in the text would show
  configuration.data.path = "a \"quoted\"\\path\n\x01 with ünicode";
  configuration.data.mean = {0.1};
  configuration.data.std = {1e300};
  configuration.model.norm_last_layer = false;
  const Configuration read = parse_configuration(to_toml(configuration), "resolved");
  EXPECT_EQ(read.optimizer.learning_rate, configuration.optimizer.learning_rate);
  EXPECT_EQ(read.optimizer.epsilon, configuration.optimizer.epsilon);
  EXPECT_EQ(read.data.path, configuration.data.path);
  expect_same_values(read, configuration);
}

TEST(Configuration, CommandLineOverridesTheFileAndTheLastOneWins) {
  const std::vector<Override> overrides = {
      {"optimizer.learning_rate", "1"},   {"optimizer.learning_rate", "3e-4"},
      {"model.norm_last_layer", "false"}, {"model.channels", "3"},
      {"data.mean", "[0.1, 0.2,0.3]"},    {"data.std", "1,2,3"},
      {"data.path", "/data/a b"}};
  const Configuration read = parse_configuration(
      "[optimizer]\nlearning_rate = 1e-3\nminimum_learning_rate = 0\n[schedule]\nwarmup_steps = 7\n",
      "run.toml", overrides);
  EXPECT_EQ(read.optimizer.learning_rate, 3e-4);
  EXPECT_EQ(read.schedule.warmup_steps, 7);
  EXPECT_FALSE(read.model.norm_last_layer);
  EXPECT_EQ(read.data.mean, (std::vector{0.1, 0.2, 0.3}));
  EXPECT_EQ(read.data.path, "/data/a b");
}

TEST(Configuration, SizeFillsWhatIsNotGivenBesideIt) {
  const Configuration small = parse_configuration("[model]\nsize = \"small\"\ndepth = 6\n", "run.toml");
  EXPECT_EQ(small.model.embed_dim, 384);
  EXPECT_EQ(small.model.depth, 6);
  EXPECT_EQ(small.model.heads, 6);
  // A size on the command line overrides the resolved file of an earlier run, where every key is given.
  const std::vector<Override> overrides = {{"model.size", "base"}, {"model.depth", "2"}};
  const Configuration base = parse_configuration(to_toml(small), "config.toml", overrides);
  EXPECT_EQ(base.model.embed_dim, 768);
  EXPECT_EQ(base.model.depth, 2);
}

TEST(Configuration, MistakesInTheFileAreNamedWithLineAndRemedy) {
  EXPECT_EQ(failure("[optimizer]\nlearning_rat = 1\n"),
            "unknown key `optimizer.learning_rat`: run.toml:2:16: did you mean `optimizer.learning_rate`?");
  EXPECT_EQ(failure("[optimiser]\nlearning_rate = 1\n"),
            "unknown section `[optimiser]`: run.toml:2:17: did you mean `[optimizer]`?");
  EXPECT_EQ(failure("[run]\nsteps = 1e3\n"),
            "run.steps is 1000.0, which is not of type integer: run.toml:2:9: its default is 2000");
  EXPECT_EQ(failure("[run]\nsteps = \"12\"\n"),
            "run.steps is '12', which is not of type integer: run.toml:2:9: its default is 2000");
  EXPECT_EQ(failure("\n[optimizer]\n  beta1 = 1.0\n"),
            "optimizer.beta1 is 1.0, outside its range: run.toml:3:11: choose 0 to below 1");
  EXPECT_EQ(failure("[precision]\ntype = \"fp23\"\n"),
            "precision.type is \"fp23\", which is not known: run.toml:2:8: did you mean \"fp32\"?");
  EXPECT_NE(failure("[run]\nsteps = \n").find("run.toml:2:"), std::string::npos)
      << failure("[run]\nsteps = \n");
  EXPECT_NE(failure("steps = 3\n").find("unknown key `steps`"), std::string::npos);
  EXPECT_NE(failure("[optimizer]\nlearning_rate = nan\n").find("outside its range"), std::string::npos);
  EXPECT_NE(failure("[data]\nstd = [0.5, -1]\n").find("data.std is -1, outside its range"),
            std::string::npos);
}

TEST(Configuration, MistakesOnTheCommandLineAreNamed) {
  EXPECT_EQ(failure("", {{"run.steps", "3x"}}),
            "run.steps is 3x, which is not of type integer: command line: its default is 2000");
  EXPECT_EQ(
      failure("", {{"optimizer.learning_rate", "1e400"}}),
      "optimizer.learning_rate is 1e400, which is not of type number: command line: its default is 0.002");
  EXPECT_EQ(failure("", {{"run.profile", "yes"}}),
            "run.profile is yes, which is not of type true or false: command line: its default is false");
  EXPECT_EQ(failure("", {{"run.seeds", "1"}}),
            "unknown key `run.seeds`: command line: did you mean `run.seed`?");
}

TEST(Configuration, ContradictionsNameBothValuesAndThePlaceOfTheLast) {
  EXPECT_EQ(failure("[model]\nheads = 5\n"),
            "model.embed_dim is 96, which 5 heads do not divide: run.toml:2:9: choose model.heads from 1, 2, "
            "3, 4, 6, 8, 12, 16, 24, 32, 48");
  EXPECT_EQ(failure("[data]\nlocal_size = 6\n"),
            "data.local_size is 6, less than one patch (model.patch_size is 7): run.toml:2:14: make the crop "
            "larger or the patch smaller");
  EXPECT_EQ(failure("", {{"data.local_size", "6"}, {"data.local_crops", "0"}}),
            "");  // no local crop, no mistake
  EXPECT_NE(failure("[data]\nglobal_scale_min = 0.5\nglobal_scale_max = 0.4\n"), "");
  EXPECT_NE(failure("[parallel]\ntensor = 2\n"), "");
  EXPECT_NE(failure("[data]\nmean = [0.1]\n"), "");
  EXPECT_NE(failure("[data]\nevaluation_test = \"x\"\n"), "");
  EXPECT_NE(failure("[run]\nsteps = 0\n"), "");
}

TEST(Configuration, MissingFileIsAUsageError) {
  try {
    load_configuration("/no/such/file.toml");
    FAIL() << "a missing file was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    EXPECT_EQ(error.where(), "/no/such/file.toml");
  }
}

TEST(Configuration, OnlyWhatChangesTheMathematicsStopsAResume) {
  const Configuration before;
  Configuration after = before;
  after.data.path = "/moved/elsewhere";
  after.parallel.accumulate = 4;
  after.run.threads = 3;
  after.run.checkpoint_every = 1;
  EXPECT_TRUE(mathematical_differences(before, after).empty());
  EXPECT_NO_THROW(require_same_mathematics(before, after, "runs/a"));

  after.optimizer.learning_rate = 1e-3;
  after.run.steps = 4000;  // the schedules span it
  const auto differences = mathematical_differences(before, after);
  ASSERT_EQ(differences.size(), 2U);
  EXPECT_EQ(differences[0].key, "optimizer.learning_rate");
  EXPECT_EQ(differences[0].before, "0.002");
  EXPECT_EQ(differences[0].after, "0.001");
  EXPECT_EQ(differences[1].key, "run.steps");
  EXPECT_THROW(require_same_mathematics(before, after, "runs/a"), Error);
}

TEST(Configuration, WarningsNameWhatIsRarelyMeant) {
  Configuration configuration;
  configuration.run.evaluate_every = 0;
  EXPECT_TRUE(configuration_warnings(configuration).empty());
  configuration.data.local_size = 15;
  configuration.run.steps = 50;
  configuration.objective.freeze_last_layer_steps = 60;
  configuration.run.evaluate_every = 10;
  EXPECT_EQ(configuration_warnings(configuration).size(), 4U);
}

TEST(Configuration, LanguageModelsHaveDefaultsOfTheirOwnThatAnythingGivenOverrides) {
  const Configuration rwkv = parse_configuration("model.type = \"rwkv\"\nmodel.depth = 2", "run.toml");
  EXPECT_EQ(rwkv.objective.type, "language_model");
  EXPECT_EQ(rwkv.model.depth, 2);
  EXPECT_EQ(rwkv.model.embed_dim, 256);
  EXPECT_EQ(rwkv.optimizer.clip_type, "global");
  EXPECT_GT(rwkv.objective.l2_wrap, 0);
  const std::vector<Override> overrides = {{"model.type", "llama"}, {"optimizer.beta2", "0.9"}};
  EXPECT_EQ(parse_configuration("", "", overrides).optimizer.beta2, 0.9);
}

TEST(Configuration, WeightDecayStaysWhatItIsUnlessAnEndIsGiven) {
  EXPECT_EQ(parse_configuration("optimizer.weight_decay = 0.3", "").optimizer.weight_decay_end, 0.3);
  EXPECT_EQ(parse_configuration("optimizer.weight_decay = 0.3\noptimizer.weight_decay_end = 0.4", "")
                .optimizer.weight_decay_end,
            0.4);
}

TEST(Configuration, KeysOfTheOtherKindOfRunAreRefused) {
  EXPECT_EQ(failure("[model]\ntype = \"xlstm\"\n[data]\nlocal_crops = 2"),
            "data.local_crops has no meaning for model.type \"xlstm\": run.toml:4:15: remove it; `bireme "
            "train --help-config` says what each key is for");
  EXPECT_NE(failure("data.documents_apart = true").find("data.documents_apart has no meaning"),
            std::string::npos);
  EXPECT_NE(failure("objective.type = \"language_model\"").find("train a vision transformer"),
            std::string::npos);
  EXPECT_EQ(to_toml(parse_configuration("model.type = \"llama\"", "")).find("patch_size"), std::string::npos);
}

}  // namespace
}  // namespace bireme
