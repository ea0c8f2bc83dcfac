#include "launch/configuration.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/error.h"
#include "launch/configuration_keys.h"
#include "launch/language_task.h"
#include "tests/support/golden.h"

namespace bireme {
namespace {

const std::filesystem::path kRepository = test::golden_folder().parent_path().parent_path();

std::string read_text(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// The message of the usage error that reading `toml` and `overrides` must end in.
std::string configuration_failure(const std::string& toml, const std::vector<Override>& overrides = {}) {
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
  int recipes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kRepository / "configs")) {
    SCOPED_TRACE(entry.path());
    const Override some_model{.key = "model.type", .value = "rwkv"};  // else that of model.init
    const bool names_none = read_text(entry.path()).find("[model]") == std::string::npos;
    const Configuration recipe =
        load_configuration(entry.path(), {&some_model, static_cast<std::size_t>(names_none)});
    expect_same_values(parse_configuration(to_toml(recipe), "resolved"), recipe);
    ++recipes;
  }
  EXPECT_GE(recipes, 24);
  expect_same_values(load_configuration(kRepository / "configs/fashion_mnist.toml"), Configuration{});
}

TEST(Configuration, TypeIsThatOfTheModelToBeginWithUnlessGiven) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "published";
  std::filesystem::create_directory(folder);
  std::ofstream(folder / "config.json") << R"({"model_type": "xlstm"})";
  std::ofstream(folder / "model.safetensors") << "weights";
  const std::vector<Override> overrides{{"model.init", folder.string()}, {"objective.type", "orpo"}};
  EXPECT_EQ(parse_configuration("", "run.toml", overrides).model.type, "xlstm");
  EXPECT_EQ(parse_configuration("[model]\ntype = \"llama\"", "run.toml", overrides).model.type, "llama");
}

TEST(Configuration, RecipesOfPublishedLanguageModelsHaveTheirNumberOfParameters) {
  struct Recipe {
    const char* name;
    std::int64_t vocabulary;  // of its tokenizer, where the recipe leaves it open
    double parameters;
  };
  constexpr std::int64_t neox = 50277;
  // Of the papers' tables (RWKV: table 2; LLaMA: table 2 and the published folders; xLSTM 7B: its paper), and
  // for the smaller xLSTMs 2·V·D and 6·D² a block, which leave out convolutions and gates: 1 %.
  for (const Recipe& r :
       {Recipe{"rwkv_169m", neox, 169.3e6}, Recipe{"rwkv_430m", neox, 430.4e6},
        Recipe{"rwkv_1b5", neox, 1.515e9}, Recipe{"rwkv_3b", neox, 2.985e9}, Recipe{"rwkv_7b", neox, 7.393e9},
        Recipe{"rwkv_14b", neox, 14.15e9}, Recipe{"llama_1b1", 0, 1.1001e9}, Recipe{"llama_7b", 0, 6.7384e9},
        Recipe{"llama_13b", 0, 13.0159e9}, Recipe{"llama_33b", 0, 32.5289e9},
        Recipe{"llama_3_8b", 0, 8.0303e9}, Recipe{"xlstm_7b", 0, 6.8655e9}, Recipe{"xlstm_125m", 0, 164e6},
        Recipe{"xlstm_350m", 0, 406e6}, Recipe{"xlstm_760m", 0, 841e6}, Recipe{"xlstm_1b3", 0, 1.42e9}}) {
    const Configuration recipe =
        load_configuration(kRepository / "configs" / (std::string(r.name) + ".toml"));
    const std::unique_ptr<Communicator> alone = make_single_process();
    const auto model = make_language_model(language_model_settings(recipe, r.vocabulary), *alone);
    double count = 0;
    for (std::size_t i = 0; i < model->model().parameters().size(); ++i)
      count += static_cast<double>(model->model().parameters()[i].whole_shape().elements());
    EXPECT_NEAR(count / r.parameters, 1, 0.01) << r.name << ": " << count;
  }
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
  EXPECT_EQ(configuration_failure("[optimizer]\nlearning_rat = 1\n"),
            "unknown key `optimizer.learning_rat`: run.toml:2:16: did you mean `optimizer.learning_rate`?");
  EXPECT_EQ(configuration_failure("[optimiser]\nlearning_rate = 1\n"),
            "unknown section `[optimiser]`: run.toml:2:17: did you mean `[optimizer]`?");
  EXPECT_EQ(configuration_failure("[run]\nsteps = 1e3\n"),
            "run.steps is 1000.0, which is not of type integer: run.toml:2:9: its default is 2000");
  EXPECT_EQ(configuration_failure("[run]\nsteps = \"12\"\n"),
            "run.steps is '12', which is not of type integer: run.toml:2:9: its default is 2000");
  EXPECT_EQ(configuration_failure("\n[optimizer]\n  beta1 = 1.0\n"),
            "optimizer.beta1 is 1.0, outside its range: run.toml:3:11: choose 0 to below 1");
  EXPECT_EQ(configuration_failure("[precision]\ntype = \"fp23\"\n"),
            "precision.type is \"fp23\", which is not known: run.toml:2:8: did you mean \"fp32\"?");
  EXPECT_NE(configuration_failure("[run]\nsteps = \n").find("run.toml:2:"), std::string::npos)
      << configuration_failure("[run]\nsteps = \n");
  EXPECT_NE(configuration_failure("steps = 3\n").find("unknown key `steps`"), std::string::npos);
  EXPECT_NE(configuration_failure("[optimizer]\nlearning_rate = nan\n").find("outside its range"),
            std::string::npos);
  EXPECT_NE(configuration_failure("[data]\nstd = [0.5, -1]\n").find("data.std is -1, outside its range"),
            std::string::npos);
}

TEST(Configuration, MistakesOnTheCommandLineAreNamed) {
  EXPECT_EQ(configuration_failure("", {{"run.steps", "3x"}}),
            "run.steps is 3x, which is not of type integer: command line: its default is 2000");
  EXPECT_EQ(
      configuration_failure("", {{"optimizer.learning_rate", "1e400"}}),
      "optimizer.learning_rate is 1e400, which is not of type number: command line: its default is 0.002");
  EXPECT_EQ(configuration_failure("", {{"run.profile", "yes"}}),
            "run.profile is yes, which is not of type true or false: command line: its default is false");
  EXPECT_EQ(configuration_failure("", {{"run.seeds", "1"}}),
            "unknown key `run.seeds`: command line: did you mean `run.seed`?");
}

TEST(Configuration, ContradictionsNameBothValuesAndBothPlaces) {
  // As when a resolved file gives everything, and the command line changes one thing.
  EXPECT_NE(configuration_failure("[model]\nembed_dim = 64\n", {{"model.heads", "5"}})
                .find(": run.toml:2:13 and command line: "),
            std::string::npos);
  EXPECT_EQ(configuration_failure("[model]\nheads = 5\n"),
            "model.embed_dim is 96, which 5 heads do not divide: run.toml:2:9: choose model.heads from 1, 2, "
            "3, 4, 6, 8, 12, 16, 24, 32, 48");
  EXPECT_EQ(configuration_failure("[data]\nlocal_size = 6\n"),
            "data.local_size is 6, less than one patch (model.patch_size is 7): run.toml:2:14: make the crop "
            "larger or the patch smaller");
  EXPECT_EQ(configuration_failure("", {{"data.local_size", "6"}, {"data.local_crops", "0"}}),
            "");  // no local crop, no mistake
  EXPECT_NE(configuration_failure("[data]\nglobal_scale_min = 0.5\nglobal_scale_max = 0.4\n"), "");
  EXPECT_NE(configuration_failure("[parallel]\ntensor = 2\n"), "");
  EXPECT_NE(configuration_failure("[data]\nmean = [0.1]\n"), "");
  EXPECT_NE(configuration_failure("[data]\nevaluation_test = \"x\"\n"), "");
  EXPECT_NE(configuration_failure("[run]\nsteps = 0\n"), "");
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
  EXPECT_EQ(configuration_failure("[model]\ntype = \"xlstm\"\n[data]\nlocal_crops = 2"),
            "data.local_crops has no meaning for model.type \"xlstm\": run.toml:4:15: remove it: it is for "
            "Pictures (`bireme train --help-config` says what each key is for)");
  EXPECT_NE(configuration_failure("data.documents_apart = true").find("data.documents_apart has no meaning"),
            std::string::npos);
  EXPECT_NE(configuration_failure("objective.type = \"language_model\"").find("train a vision transformer"),
            std::string::npos);
  EXPECT_EQ(to_toml(parse_configuration("model.type = \"llama\"", "")).find("patch_size"), std::string::npos);
}

TEST(Configuration, KeysOfOneKindOfLanguageModelAreRefusedForOthers) {
  const std::vector<std::pair<std::string, std::string>> keys = {
      {"kv_heads = 2", "llama"},       {"head_dim = 16", "llama"},     {"rope_theta = 5000", "llama"},
      {"attention_dim = 64", "rwkv"},  {"variant = 'paper'", "xlstm"}, {"pattern = 'ms'", "xlstm"},
      {"memory = 'learned'", "xlstm"}, {"heads = 4", "xlstm, llama"}};
  for (const auto& [key, takers] : keys)
    for (const std::string type : {"rwkv", "xlstm", "llama"}) {
      SCOPED_TRACE(key + " for " + type);
      const std::string toml = "[model]\ntype = '" + type + "'\n" + key;
      const std::string name = "model." + key.substr(0, key.find(' '));
      if (takers.find(type) != std::string::npos) {
        EXPECT_NO_THROW(parse_configuration(toml, "run.toml"));
      } else {
        EXPECT_TRUE(configuration_failure(toml).starts_with(name + " has no meaning for model.type \"" +
                                                            type + "\": run.toml:3:"))
            << configuration_failure(toml);
      }
      // What a run writes down has no such key, and can be read again.
      const std::string written = to_toml(parse_configuration("model.type = '" + type + "'", ""));
      EXPECT_EQ(written.find("\n" + key.substr(0, key.find(' ')) + " = ") != std::string::npos,
                takers.find(type) != std::string::npos);
      EXPECT_NO_THROW(parse_configuration(written, ""));
    }
  EXPECT_NE(configuration_failure("[model]\ntype = 'xlstm'\nvariant = 'large'\npattern = 'ms'")
                .find("has m blocks only"),
            std::string::npos);
}

}  // namespace
}  // namespace bireme
