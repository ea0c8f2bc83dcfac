#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "models/published/json_file.h"
#include "models/published/vision_transformer.h"

namespace bireme {

namespace {

const char* rule_name(PositionRule rule) { return rule == PositionRule::official ? "official" : "size"; }

PositionRule rule_from(const JsonFile& json) {
  const std::string name = json.text("position_rule");
  if (name == "official") return PositionRule::official;
  if (name == "size") return PositionRule::size;
  json.fail(fmt::format("`position_rule` is `{}`", name), "choose official or size");
}

void require_supported_vit(const JsonFile& config) {
  if (const std::string type = config.text("model_type", "vit"); type != "vit")
    config.fail(fmt::format("`model_type` is `{}`, not `vit`", type), "give a folder of a ViTModel");
  if (const std::string activation = config.text("hidden_act", "gelu"); activation != "gelu")
    config.fail(fmt::format("`hidden_act` is `{}`; only the exact `gelu` is computed here", activation),
                "give a model that was trained with gelu");
}

int to_int(const JsonFile& config, const char* key, std::int64_t fallback) {
  const std::int64_t value = config.integer(key, fallback);
  if (value < 1) config.fail(fmt::format("`{}` is {}", key, value), "correct the value");
  return static_cast<int>(value);
}

VisionTransformerOptions vit_options_from(const JsonFile& config) {
  require_supported_vit(config);
  VisionTransformerOptions options;
  options.embed_dim = to_int(config, "hidden_size", 768);
  options.depth = to_int(config, "num_hidden_layers", 12);
  options.heads = to_int(config, "num_attention_heads", 12);
  options.channels = to_int(config, "num_channels", 3);
  options.mlp_ratio =
      static_cast<double>(to_int(config, "intermediate_size", 3072)) / static_cast<double>(options.embed_dim);
  options.layer_norm_epsilon = static_cast<float>(config.number("layer_norm_eps", 1e-12));
  const auto [patch_height, patch_width] =
      config.has("patch_size") ? config.size("patch_size") : std::pair<std::int64_t, std::int64_t>{16, 16};
  if (patch_height != patch_width)
    config.fail(fmt::format("patches of {} x {} are not square", patch_height, patch_width),
                "give a model with square patches");
  const auto [height, width] =
      config.has("image_size") ? config.size("image_size") : std::pair<std::int64_t, std::int64_t>{224, 224};
  options.patch = static_cast<int>(patch_height);
  options.image_size = static_cast<int>(height);
  options.image_width = height == width ? 0 : static_cast<int>(width);
  options.position_rule = PositionRule::size;
  return options;
}

DinoHeadOptions head_from(const JsonFile& json, std::int64_t in_dim) {
  return {.in_dim = in_dim,
          .layers = to_int(json, "layers", 3),
          .hidden = json.integer("hidden"),
          .bottleneck = json.integer("bottleneck"),
          .out_dim = json.integer("prototypes"),
          .batch_norm = json.flag("batch_norm", false),
          .norm_last_layer = json.flag("norm_last_layer", true)};
}

void read_preprocessing(const std::filesystem::path& path, PublishedVisionTransformer& published) {
  const JsonFile json(path);
  if (!json.has("image_mean") || !json.has("image_std")) return;
  published.mean = json.numbers("image_mean");
  published.deviation = json.numbers("image_std");
  const auto channels = static_cast<std::size_t>(published.options.channels);
  if (published.mean.size() != channels || published.deviation.size() != channels)
    json.fail(fmt::format("`image_mean` and `image_std` have {} and {} entries, the model has {} channels",
                          published.mean.size(), published.deviation.size(), channels),
              "give one entry for each channel");
  for (const double deviation : published.deviation)
    if (!(deviation > 0))
      json.fail(fmt::format("`image_std` holds {}", deviation), "deviations are positive");
}

}  // namespace

PublishedVisionTransformer read_vision_transformer(const std::filesystem::path& folder) {
  const JsonFile config(folder / "config.json");
  PublishedVisionTransformer published;
  published.options = vit_options_from(config);
  published.has_qkv_bias = config.flag("qkv_bias", true);
  if (std::filesystem::exists(folder / "preprocessor_config.json"))
    read_preprocessing(folder / "preprocessor_config.json", published);
  if (std::filesystem::exists(folder / "bireme.json")) {
    const JsonFile own(folder / "bireme.json");
    published.options.position_rule = rule_from(own);
    if (own.has("dino_head"))
      published.head = head_from(own.object("dino_head"), published.options.embed_dim);
  }
  try {
    published.options.validate();
    if (published.head) published.head->validate();
  } catch (const Error& error) {  // what the settings of a run may not be, a folder may not be either
    config.fail(error.problem(), "check that the file belongs to a vision transformer");
  }
  return published;
}

namespace {

using Json = nlohmann::ordered_json;

/// A side, or both when they differ.
Json sides(std::int64_t height, std::int64_t width) {
  return height == width ? Json(height) : Json::array({height, width});
}

Json config_of(const VisionTransformerOptions& options, DType type) {
  const int width = options.image_width == 0 ? options.image_size : options.image_width;
  return {{"architectures", {"ViTModel"}},
          {"model_type", "vit"},
          {"hidden_size", options.embed_dim},
          {"num_hidden_layers", options.depth},
          {"num_attention_heads", options.heads},
          {"intermediate_size", options.hidden()},
          {"hidden_act", "gelu"},
          {"image_size", sides(options.image_size, width)},
          {"patch_size", options.patch},
          {"num_channels", options.channels},
          {"qkv_bias", true},
          // In double the float 1e-6 would read 9.99999997e-07.
          {"layer_norm_eps", std::stod(fmt::format("{}", options.layer_norm_epsilon))},
          {"initializer_range", options.init_std > 0 ? options.init_std : 0.02},
          {"attention_probs_dropout_prob", 0.0},
          {"hidden_dropout_prob", 0.0},
          {"dtype", type == DType::bf16 ? "bfloat16" : "float32"},
          {"transformers_version", "4.56.0"}};
}

Json preprocessor_of(const PublishedVisionTransformer& published) {
  const VisionTransformerOptions& options = published.options;
  constexpr int kBicubic = 3;
  return {{"image_processor_type", "ViTImageProcessor"},
          {"do_resize", true},
          {"do_rescale", true},
          {"do_normalize", true},
          {"rescale_factor", 1.0 / 255},
          {"resample", kBicubic},
          {"size",
           {{"height", options.image_size},
            {"width", options.image_width == 0 ? options.image_size : options.image_width}}},
          {"image_mean", published.mean},
          {"image_std", published.deviation}};
}

Json own_of(const PublishedVisionTransformer& published) {
  Json own = {{"position_rule", rule_name(published.options.position_rule)}};
  if (!published.head) return own;
  const DinoHeadOptions& head = *published.head;
  own["dino_head"] = {{"layers", head.layers},         {"hidden", head.hidden},
                      {"bottleneck", head.bottleneck}, {"prototypes", head.out_dim},
                      {"batch_norm", head.batch_norm}, {"norm_last_layer", head.norm_last_layer}};
  return own;
}

}  // namespace

std::vector<Document> vision_transformer_documents(const PublishedVisionTransformer& published, DType type) {
  std::vector<Document> documents{{"config.json", json_text(config_of(published.options, type), 2) + "\n"}};
  if (!published.mean.empty())
    documents.push_back({"preprocessor_config.json", json_text(preprocessor_of(published), 2) + "\n"});
  documents.push_back({"bireme.json", json_text(own_of(published), 2) + "\n"});
  return documents;
}

}  // namespace bireme
