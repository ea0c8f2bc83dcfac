#include "models/published/vision_transformer_names.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <string_view>
#include <utility>

namespace bireme {

namespace {

/// Collects tensors; shapes are those of the files.
class VitTensors {
 public:
  explicit VitTensors(std::string prefix) : prefix_(std::move(prefix)) {}

  void add(const std::string& name, const std::string& parameter, const Shape& shape, int block = 0,
           int blocks = 1) {
    tensors.push_back(
        {.name = name, .shape = shape, .parameter = prefix_ + parameter, .block = block, .blocks = blocks});
  }
  void add_linear(const std::string& name, const std::string& parameter, std::int64_t in, std::int64_t out) {
    add(name + ".weight", parameter + ".weight", {out, in});
    add(name + ".bias", parameter + ".bias", {out});
  }
  void add_norm(const std::string& name, const std::string& parameter, std::int64_t channels) {
    add(name + ".weight", parameter + ".weight", {channels});
    add(name + ".bias", parameter + ".bias", {channels});
  }

  std::vector<PublishedTensor> tensors;

 private:
  std::string prefix_;
};

void add_block(VitTensors& list, int i, const VisionTransformerOptions& options, bool has_qkv_bias) {
  const std::string layer = fmt::format("encoder.layer.{}.", i), block = fmt::format("blocks.{}.", i);
  const std::int64_t dim = options.embed_dim;
  list.add_norm(layer + "layernorm_before", block + "norm1", dim);
  constexpr std::array kParts = {"query", "key", "value"};
  for (int part = 0; part < 3; ++part) {
    const std::string name = layer + "attention.attention." + kParts[static_cast<std::size_t>(part)];
    list.add(name + ".weight", block + "attn.qkv.weight", {dim, dim}, part, 3);
    if (has_qkv_bias) list.add(name + ".bias", block + "attn.qkv.bias", {dim}, part, 3);
  }
  list.add_linear(layer + "attention.output.dense", block + "attn.proj", dim, dim);
  list.add_norm(layer + "layernorm_after", block + "norm2", dim);
  list.add_linear(layer + "intermediate.dense", block + "mlp.fc1", dim, options.hidden());
  list.add_linear(layer + "output.dense", block + "mlp.fc2", options.hidden(), dim);
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

/// Names of modules in memory as transformers 5 has them, and as files have them.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kModuleNames = {{
    {"attention.q_proj.", "attention.attention.query."},
    {"attention.k_proj.", "attention.attention.key."},
    {"attention.v_proj.", "attention.attention.value."},
    {"attention.o_proj.", "attention.output.dense."},
    {"mlp.fc1.", "intermediate.dense."},
    {"mlp.fc2.", "output.dense."},
}};

std::string name_on_disk(std::string_view name) {
  if (!take_prefix(name, "layers.")) return std::string(name);
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos) return "encoder.layer." + std::string(name);
  const std::string layer = fmt::format("encoder.layer.{}.", name.substr(0, dot));
  std::string_view rest = name.substr(dot + 1);
  for (const auto& [in_memory, on_disk] : kModuleNames)
    if (take_prefix(rest, in_memory)) return fmt::format("{}{}{}", layer, on_disk, rest);
  return fmt::format("{}{}", layer, rest);
}

bool is_beside_the_features(std::string_view name) {
  return name.starts_with("pooler.") || name.starts_with("classifier.") || name == "embeddings.mask_token";
}

}  // namespace

std::vector<PublishedTensor> vision_transformer_tensors(const VisionTransformerOptions& options,
                                                        const std::string& prefix, bool has_qkv_bias) {
  VitTensors list(prefix);
  const std::int64_t dim = options.embed_dim, patch = options.patch;
  list.add("embeddings.cls_token", "cls_token", {1, 1, dim});
  list.add("embeddings.position_embeddings", "pos_embed",
           {1, options.grid_rows() * options.grid_columns() + 1, dim});
  list.add("embeddings.patch_embeddings.projection.weight", "patch_embed.proj.weight",
           {dim, options.channels, patch, patch});
  list.add("embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias", {dim});
  for (int i = 0; i < options.depth; ++i) add_block(list, i, options, has_qkv_bias);
  list.add_norm("layernorm", "norm", dim);
  return list.tensors;
}

std::vector<PublishedTensor> dino_head_tensors(const ParameterSet& parameters, const std::string& prefix) {
  std::vector<PublishedTensor> tensors;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    if (!parameter.name().starts_with(prefix)) continue;
    tensors.push_back({.name = parameter.name().substr(prefix.size()),
                       .shape = parameter.whole_shape(),
                       .parameter = parameter.name()});
  }
  return tensors;
}

PublishedNames vision_transformer_names(const std::vector<std::string>& stored) {
  PublishedNames names;
  for (const std::string& name : stored) {
    std::string_view inner = name;
    take_prefix(inner, "vit.");
    if (is_beside_the_features(inner)) continue;
    // A tensor that is there under two names is as wrong as an unknown one, and is reported like it.
    if (!names.emplace(name_on_disk(inner), name).second) names.emplace(name + " (again)", name);
  }
  return names;
}

}  // namespace bireme
