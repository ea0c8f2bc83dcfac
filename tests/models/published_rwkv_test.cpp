#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/base/files.h"
#include "core/base/json.h"
#include "core/io/safetensors_writer.h"
#include "models/published/language_model.h"
#include "models/published/rwkv.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/rwkv.h"
#include "tests/support/temporary_folder.h"

namespace bireme::test {
namespace {

const std::filesystem::path kRwkvFolder = test::golden_folder() / "rwkv/hf_tiny";

class PublishedRwkvTest : public testing::Test {
 protected:
  LoadedRwkv load(const std::filesystem::path& folder, DType master = DType::f32) {
    return load_rwkv(folder, *memory_, *single_, {.master = master, .gradients = false});
  }
  Tensor logits(const LoadedRwkv& loaded, const Tensor& tokens) {
    Tape tape(*backend_, Tape::Mode::inference);
    const DType type = loaded.model->parameters().flat_values().dtype();
    const Var hidden = loaded.model->hidden(tape, {.tokens = tokens, .starts = {}}, {.type = type});
    return loaded.model->head().logits(*backend_, hidden.value());
  }

  /// The golden folder with its weights renamed, dropped (an empty name) or joined by others.
  using Rename = std::function<std::string(const std::string&)>;
  void write_variant(const Rename& rename, const std::vector<std::pair<std::string, Tensor>>& more = {},
                     bool with_config = true) {
    const SafetensorsFolder source = SafetensorsFolder::open(kRwkvFolder);
    std::vector<std::pair<std::string, Tensor>> tensors = more;
    for (const std::string& name : source.names())
      if (const std::string other = rename(name); !other.empty())
        tensors.emplace_back(other, source.read(name, *memory_));
    write_safetensors(folder_.path() / "model.safetensors", tensors);
    if (with_config && !std::filesystem::exists(folder_.path() / "config.json"))
      std::filesystem::copy_file(kRwkvFolder / "config.json", folder_.path() / "config.json");
  }
  void write_config(const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json config = parse_json(read_file(kRwkvFolder / "config.json", 1 << 20));
    change(config);
    folder_.write("config.json", json_text(config));
  }
  std::string refusal() {
    return error_of(ErrorKind::checkpoint, [&] { load(folder_.path()); });
  }

  TemporaryFolder folder_;
  std::shared_ptr<Memory> memory_ = make_host_memory();
  std::unique_ptr<Backend> backend_ = make_cpu_backend(memory_);
  std::unique_ptr<Communicator> single_ = make_single_process();
  Golden expected_{"rwkv/hf_tiny/expected.h5"};
};

std::string unchanged(const std::string& name) { return name; }

/// The official name of a tensor in a Hugging Face folder.
std::string official(std::string name) {
  for (const auto& [from, to] : {std::pair{"rwkv.", ""},
                                 {"embeddings.", "emb."},
                                 {"pre_ln", "ln0"},
                                 {"attention.", "att."},
                                 {"feed_forward.", "ffn."},
                                 {"time_mix_key", "time_mix_k"},
                                 {"time_mix_value", "time_mix_v"},
                                 {"time_mix_receptance", "time_mix_r"}})
    if (const std::size_t at = name.find(from); at != std::string::npos)
      name.replace(at, std::string(from).size(), to);
  return name;
}

TEST_F(PublishedRwkvTest, GivesTheLogitsOfTheReference) {
  for (const auto& [type, tolerance] : {std::pair{DType::f32, 1e-5}, {DType::f64, 1e-6}}) {
    const LoadedRwkv loaded = load(kRwkvFolder, type);
    EXPECT_EQ(loaded.published.options.layers, 3);
    EXPECT_EQ(loaded.published.options.rescale_every, 6);
    for (const char* shape : {"1x23", "2x1", "3x8"}) {
      const Tensor reference = expected_.tensor(std::string("outputs/") + shape);
      expect_close(logits(loaded, expected_.tensor(std::string("inputs/") + shape)),
                   reference.reshape({reference.rows(), reference.channels()}), tolerance, 0, shape);
    }
  }
}

TEST_F(PublishedRwkvTest, AcceptsOfficialNamesWithAndWithoutAConfiguration) {
  const Tensor tokens = expected_.tensor("inputs/3x8");
  const Tensor reference = logits(load(kRwkvFolder), tokens);
  write_variant(official, {}, false);
  expect_identical(logits(load(folder_.path()), tokens), reference);
  write_variant(official);
  expect_identical(logits(load(folder_.path()), tokens), reference);
}

TEST_F(PublishedRwkvTest, ReadsATiedHead) {
  write_config([](auto& config) { config["tie_word_embeddings"] = true; });
  write_variant([](const std::string& name) { return name == "head.weight" ? std::string() : name; });
  const LoadedRwkv tied = load(folder_.path());
  const LoadedRwkv own = load(kRwkvFolder);
  copy(own.model->parameters().find("emb.weight")->value(),
       own.model->parameters().find("head.weight")->value());
  const Tensor tokens = expected_.tensor("inputs/3x8");
  expect_identical(logits(tied, tokens), logits(own, tokens));
}

TEST_F(PublishedRwkvTest, WhatIsExportedReadsBackTheSame) {
  const LoadedRwkv loaded = load(kRwkvFolder);
  const std::filesystem::path folder = folder_.path() / "exported";
  const auto published = open_language_model(kRwkvFolder, *memory_, *single_);
  export_language_model(folder, *published, {}, {});
  const LoadedRwkv again = load(folder);
  expect_identical(again.model->parameters().flat_values(), loaded.model->parameters().flat_values());
  const nlohmann::json ours = parse_json(read_file(folder / "config.json", 1 << 20));
  const nlohmann::json theirs = parse_json(read_file(kRwkvFolder / "config.json", 1 << 20));
  for (const auto& [key, value] : theirs.items())
    if (key != "transformers_version") {
      EXPECT_EQ(ours.at(key), value) << key;
    }
  const SafetensorsFolder source = SafetensorsFolder::open(folder),
                          original = SafetensorsFolder::open(kRwkvFolder);
  EXPECT_EQ(source.names(), original.names());
  for (const std::string& name : source.names())
    EXPECT_EQ(source.entry(name).shape, original.entry(name).shape) << name;
}

TEST_F(PublishedRwkvTest, RefusesVariantsWithTheReason) {
  for (const auto& [name, reason] : {std::pair{"blocks.0.ffnPre.key.weight", "channel mixing in place"},
                                     {"head_q.weight", "copying head"},
                                     {"blocks.1.tiny_q.weight", "attention"},
                                     {"pos_emb_x", "position"},
                                     {"blocks.0.att.time_faaaa", "RWKV-5"},
                                     {"blocks.0.att.ln_x.weight", "RWKV-5"},
                                     {"blocks.0.att.gate.weight", "RWKV-5"}})
    for (const bool with_config : {true, false}) {
      std::filesystem::remove(folder_.path() / "config.json");
      write_variant(official, {{name, random_tensor(*memory_, {48}, 1)}}, with_config);
      EXPECT_TRUE(mentions(refusal(), {name, reason, "not RWKV-4"}));
    }
}

TEST_F(PublishedRwkvTest, NamesMissingExtraAndMisshapenTensors) {
  write_variant(
      [](const std::string& name) { return name == "rwkv.ln_out.bias" ? "rwkv.ln_out.offset" : name; });
  EXPECT_TRUE(mentions(refusal(), {"`rwkv.ln_out.bias` of shape [48] is missing", "rwkv.ln_out.offset",
                                   "no part of the model"}));
  write_config([](auto& config) { config["intermediate_size"] = 100; });
  write_variant(unchanged);
  EXPECT_TRUE(mentions(refusal(), {"feed_forward.key.weight", "[192, 48]", "[100, 48]"}));
}

TEST_F(PublishedRwkvTest, RefusesOtherModelsAndSettings) {
  write_variant(unchanged);
  write_config([](auto& config) { config["model_type"] = "llama"; });
  EXPECT_TRUE(mentions(refusal(), {"config.json", "`model_type` is `llama`"}));
  write_config([](auto& config) { config["num_hidden_layers"] = 0; });
  EXPECT_TRUE(mentions(refusal(), {"config.json", "model.layers is 0"}));
}

}  // namespace
}  // namespace bireme::test
