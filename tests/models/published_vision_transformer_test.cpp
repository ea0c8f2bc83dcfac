#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/base/files.h"
#include "core/base/json.h"
#include "core/io/safetensors_writer.h"
#include "models/dino_network.h"
#include "models/published/vision_transformer.h"
#include "models/published/vision_transformer_names.h"
#include "models/registry.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/vision.h"

namespace bireme::test {
namespace {

const std::filesystem::path kVitFolder = test::golden_folder() / "vision/hf_vit";

class PublishedVisionTransformerTest : public testing::Test {
 protected:
  LoadedVisionTransformer load(const std::filesystem::path& folder, DType master = DType::f32) {
    return load_vision_transformer(folder, *memory_, *single_,
                                   {.master = master, .gradients = false, .bf16_copy = false});
  }
  Tensor tokens(const LoadedVisionTransformer& loaded, const Tensor& images) {
    Tape tape(*backend_, Tape::Mode::inference);
    const DType type = loaded.parameters->flat_values().dtype();
    return loaded.model
        ->tokens(tape, {Var(convert(*memory_, images, type))}, {.type = type, .keep = {}, .recompute = false})
        .value();
  }

  /// The golden folder with its weights renamed, dropped (an empty name) or changed.
  using Rename = std::function<std::string(const std::string&)>;
  void write_variant(const Rename& rename, const std::vector<std::pair<std::string, Tensor>>& more = {}) {
    const SafetensorsFolder source = SafetensorsFolder::open(kVitFolder);
    std::vector<std::pair<std::string, Tensor>> tensors = more;
    for (const std::string& name : source.names())
      if (const std::string other = rename(name); !other.empty())
        tensors.emplace_back(other, source.read(name, *memory_));
    write_safetensors(folder_.path() / "model.safetensors", tensors);
    if (!std::filesystem::exists(folder_.path() / "config.json"))
      std::filesystem::copy_file(kVitFolder / "config.json", folder_.path() / "config.json");
  }
  void write_config(const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json config = parse_json(read_file(kVitFolder / "config.json", 1 << 20));
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
};

std::string unchanged_vit(const std::string& name) { return name; }

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  if (const std::size_t at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

TEST_F(PublishedVisionTransformerTest, GivesWhatTransformersGives) {
  const Golden golden("vision/hf_vit/expected.h5");
  for (const DType type : {DType::f32, DType::f64}) {
    SCOPED_TRACE(to_string(type));
    // The fixture's own tolerance in fp32. The reference takes its softmax in fp32 even in fp64, so 1e-6
    // there.
    const double tolerance = type == DType::f64 ? 1e-6 : 1e-5;
    const LoadedVisionTransformer loaded = load(kVitFolder, type);
    for (const char* size : {"32x32", "48x40"}) {  // the second needs the size rule
      const std::string at = std::string("/") + size + "/";
      const Tensor images = golden.tensor("inputs" + at + "pixel_values");
      expect_close(tokens(loaded, images), golden.tensor("outputs" + at + "last_hidden_state"), tolerance, 0,
                   size);
      expect_close(loaded.model->attention(*backend_, convert(*memory_, images, type), type),
                   golden.tensor("outputs" + at + "attention_last"), 1e-5, 0, size);
    }
  }
}

TEST_F(PublishedVisionTransformerTest, AcceptsTheThreeSpellings) {
  const Tensor images = random_tensor(*memory_, {1, 3, 32, 32}, 1);
  const Tensor expected = tokens(load(kVitFolder), images);
  const std::vector<std::pair<const char*, Rename>> spellings = {
      {"classifier", [](const std::string& name) { return "vit." + name; }},
      {"in memory", [](std::string name) {
         for (const auto& [from, to] : {std::pair{"encoder.layer.", "layers."},
                                        {"attention.attention.query", "attention.q_proj"},
                                        {"attention.attention.key", "attention.k_proj"},
                                        {"attention.attention.value", "attention.v_proj"},
                                        {"attention.output.dense", "attention.o_proj"},
                                        {"intermediate.dense", "mlp.fc1"},
                                        {"output.dense", "mlp.fc2"}})
           name = replaced(name, from, to);
         return name;
       }}};
  for (const auto& [what, rename] : spellings) {
    SCOPED_TRACE(what);
    write_variant(rename, {{"classifier.weight", random_tensor(*memory_, {10, 48}, 1)},
                           {"pooler.dense.bias", random_tensor(*memory_, {48}, 1)}});
    expect_identical(tokens(load(folder_.path()), images), expected);
  }
}

TEST_F(PublishedVisionTransformerTest, ComputesWithoutBiasesOfQueryKeyAndValue) {
  write_config([](auto& config) { config["qkv_bias"] = false; });
  const auto is_qkv_bias = [](const std::string& name) {
    return name.find("attention.attention") != std::string::npos && name.ends_with("bias");
  };
  write_variant([&](const std::string& name) { return is_qkv_bias(name) ? std::string() : name; });
  const LoadedVisionTransformer loaded = load(folder_.path());
  for (const float value :
       loaded.parameters->find("backbone.blocks.0.attn.qkv.bias")->value().values<float>())
    EXPECT_EQ(value, 0);
  for (const float value :
       loaded.parameters->find("backbone.blocks.0.attn.proj.bias")->value().values<float>())
    EXPECT_NE(value, 0);
}

TEST_F(PublishedVisionTransformerTest, NamesMissingExtraAndMisshapenTensors) {
  write_variant([](const std::string& name) { return name == "layernorm.bias" ? "layernorm.offset" : name; });
  EXPECT_TRUE(mentions(
      refusal(), {"`layernorm.bias` of shape [48] is missing", "layernorm.offset", "no part of the model"}));
  write_config([](auto& config) { config["intermediate_size"] = 100; });
  write_variant(unchanged_vit);
  EXPECT_TRUE(mentions(refusal(), {"encoder.layer.0.intermediate.dense.weight", "[96, 48]", "[100, 48]"}));
}

TEST_F(PublishedVisionTransformerTest, RefusesANetworkOfOtherSizes) {
  const PublishedVisionTransformer published = read_vision_transformer(kVitFolder);
  const auto refusal_by = [&](const std::function<void(VisionTransformerOptions&)>& change) {
    VisionTransformerOptions options = published.options;
    change(options);
    VisionFixture vit(options, DType::f32);
    return error_of(ErrorKind::checkpoint,
                    [&] { import_vision_transformer(kVitFolder, published, vit.parameters, ""); });
  };
  EXPECT_TRUE(mentions(refusal_by([](auto& o) { o.embed_dim = 96; }),
                       {"`embeddings.cls_token`", "[1, 1, 48]", "[1, 1, 96]"}));
  EXPECT_TRUE(mentions(refusal_by([](auto& o) { o.image_size = 64; }),
                       {"position_embeddings", "[1, 17, 48]", "[1, 65, 48]"}));
  EXPECT_TRUE(mentions(refusal_by([](auto& o) { o.depth = 1; }), {"encoder.layer.1", "no place"}));
  EXPECT_TRUE(mentions(refusal_by([](auto& o) { o.depth = 3; }), {"nothing for `blocks.2."}));
}

TEST_F(PublishedVisionTransformerTest, RefusesOtherModelsByName) {
  const std::vector<std::pair<std::string, std::function<void(nlohmann::json&)>>> cases = {
      {"`hidden_act` is `gelu_new`", [](auto& c) { c["hidden_act"] = "gelu_new"; }},
      {"`model_type` is `llama`", [](auto& c) { c["model_type"] = "llama"; }},
      {"patches of 8 x 4 are not square",
       [](auto& c) {
         c["patch_size"] = {8, 4};
       }},
      {"`num_attention_heads` is \"three\"", [](auto& c) { c["num_attention_heads"] = "three"; }},
      {"5 heads cannot share evenly", [](auto& c) { c["num_attention_heads"] = 5; }},
      {"`hidden_size` is -48", [](auto& c) { c["hidden_size"] = -48; }}};
  for (const auto& [message, change] : cases) {
    write_config(change);
    write_variant(unchanged_vit);
    EXPECT_TRUE(mentions(refusal(), {message, "config.json"}));
  }
  folder_.write("config.json", "[1, 2]");
  EXPECT_TRUE(mentions(refusal(), {"not a JSON object"}));
}

TEST_F(PublishedVisionTransformerTest, ReadsPairsOfSizesAndTheNormEpsilon) {
  write_config([](auto& config) {
    config["image_size"] = {16, 64};  // as many patches as 32 x 32
    config["patch_size"] = {8, 8};
    config["layer_norm_eps"] = 1e-3;
  });
  write_variant(unchanged_vit);
  const LoadedVisionTransformer loaded = load(folder_.path());
  EXPECT_EQ(loaded.published.options.grid_rows(), 2);
  EXPECT_EQ(loaded.published.options.grid_columns(), 8);
  EXPECT_FLOAT_EQ(loaded.published.options.layer_norm_epsilon, 1e-3f);
  EXPECT_EQ(loaded.published.options.position_rule, PositionRule::size);
  EXPECT_EQ(tokens(loaded, random_tensor(*memory_, {1, 3, 16, 64}, 1)).shape(), (Shape{17, 48}));
}

/// A network with every option away from its default, and what is published about it.
struct Trained {
  explicit Trained(Communicator& tensor, Memory& memory) : network(options(), tensor) {
    network.build(memory, {.master = DType::f32, .gradients = false, .bf16_copy = false});
    network.parameters().initialize(9);
    for (const DinoHead::Buffer& buffer : network.head().buffers()) fill(buffer.value, 0.25);
    published.options = network.backbone().options();
    published.mean = {0.5, 0.25};
    published.deviation = {0.125, 0.75};
  }
  static DinoNetworkOptions options() {
    DinoNetworkOptions options;
    options.backbone.embed_dim = 24;
    options.backbone.depth = 2;
    options.backbone.heads = 3;
    options.backbone.patch = 4;
    options.backbone.channels = 2;
    options.backbone.image_size = 12;
    options.backbone.mlp_ratio = 3;
    options.head = {.layers = 2,
                    .hidden = 10,
                    .bottleneck = 6,
                    .out_dim = 14,
                    .batch_norm = true,
                    .norm_last_layer = false};
    return options;
  }
  DinoNetwork network;
  PublishedVisionTransformer published;
};

TEST_F(PublishedVisionTransformerTest, ExportAndImportGiveTheSameBits) {
  const Trained trained(*single_, *memory_);
  const std::filesystem::path out = folder_.path() / "exported";
  for (const std::int64_t shard_bytes : {0, 5000}) {
    SCOPED_TRACE(shard_bytes);
    export_vision_transformer(out, {.published = trained.published,
                                    .parameters = trained.network.parameters(),
                                    .head = &trained.network.head(),
                                    .options = {.type = DType::f32, .shard_bytes = shard_bytes}});
    EXPECT_EQ(std::filesystem::exists(out / "model.safetensors"), shard_bytes == 0);
    EXPECT_EQ(std::filesystem::exists(out / "model.safetensors.index.json"), shard_bytes != 0);

    const PublishedVisionTransformer read = read_vision_transformer(out);
    EXPECT_EQ(read.mean, trained.published.mean);
    EXPECT_EQ(read.deviation, trained.published.deviation);
    EXPECT_EQ(read.options.position_rule, PositionRule::official);
    EXPECT_EQ(read.options.layer_norm_epsilon, 1e-6f);
    ASSERT_TRUE(read.head.has_value());
    DinoNetwork again({.backbone = read.options, .head = *read.head}, *single_);
    again.build(*memory_, {.master = DType::f32, .gradients = false, .bf16_copy = false});
    import_vision_transformer(out, read, again.parameters(), "backbone.");
    import_dino_head(out, again.parameters(), "head.", again.head());
    expect_identical(again.parameters().flat_values(), trained.network.parameters().flat_values());
    for (const DinoHead::Buffer& buffer : again.head().buffers())
      EXPECT_EQ(buffer.value.values<float>()[3], 0.25f) << buffer.name;
  }
}

TEST_F(PublishedVisionTransformerTest, ExportsInHalfTheSize) {
  const Trained trained(*single_, *memory_);
  const std::filesystem::path out = folder_.path() / "exported";
  export_vision_transformer(out, {.published = trained.published,
                                  .parameters = trained.network.parameters(),
                                  .options = {.type = DType::bf16}});
  EXPECT_FALSE(std::filesystem::exists(out / "dino_head.safetensors"));
  const SafetensorsFolder source = SafetensorsFolder::open(out);
  for (const std::string& name : source.names()) EXPECT_EQ(source.entry(name).stored_type, "BF16") << name;
  // Seven explicit bits: a rounding is off by at most 2^-8 of the value.
  const LoadedVisionTransformer loaded = load(out);
  for (std::size_t i = 0; i < loaded.parameters->size(); ++i) {
    const Parameter& parameter = (*loaded.parameters)[i];
    expect_close(parameter.value(), trained.network.parameters().find(parameter.name())->value(), 1.0 / 256,
                 0, parameter.name());
  }
}

TEST_F(PublishedVisionTransformerTest, LeavesNothingBehindWhenAnExportFails) {
  const Trained trained(*single_, *memory_);
  const auto blocked = folder_.write("file", "in the way") / "exported";
  error_of(ErrorKind::checkpoint, [&] {
    export_vision_transformer(blocked,
                              {.published = trained.published, .parameters = trained.network.parameters()});
  });
  EXPECT_EQ(folder_.read("file"), "in the way");
}

TEST_F(PublishedVisionTransformerTest, IsListedAmongTheModels) {
  EXPECT_EQ(model_type_of(kVitFolder).name, "vit");
  EXPECT_EQ(model_type("vit").published, "vit");
  EXPECT_TRUE(mentions(error_of(ErrorKind::usage, [] { (void)model_type("vot"); }),
                       {"`vot`", "did you mean `vit`?"}));
  write_config([](auto& config) { config["model_type"] = "bert"; });
  EXPECT_TRUE(mentions(error_of(ErrorKind::checkpoint, [&] { (void)model_type_of(folder_.path()); }),
                       {"`bert`", "vit"}));
}

}  // namespace
}  // namespace bireme::test
