#include "models/published/llama.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <cstring>
#include <string_view>

#include "core/base/error.h"

namespace bireme {

namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

/// Collects tensors, each a block of a parameter's rows.
class LlamaTensors {
 public:
  void add(const std::string& name, const Shape& shape) { add(name, shape, name, 0, 1); }
  void add(const std::string& name, const Shape& shape, const std::string& parameter, int block,
           const Blocks& blocks) {
    tensors.push_back(
        {.name = name, .shape = shape, .parameter = parameter, .block = block, .blocks = blocks});
  }
  std::vector<PublishedTensor> tensors;
};

void add_block(LlamaTensors& list, const std::string& layer, const LlamaOptions& options) {
  const AttentionHeads heads = options.attention_heads();
  const std::int64_t wide = options.channels, attended = heads.queries * heads.dimension,
                     keys = heads.keys * heads.dimension, hidden = options.hidden_width();
  list.add(layer + "input_layernorm.weight", {wide});
  constexpr std::array kProjections = {"q_proj", "k_proj", "v_proj"};
  const std::array rows = {attended, keys, keys};
  const Blocks shares{heads.queries, heads.keys, heads.keys};
  const std::string fused = layer + "self_attn.qkv_proj", gate_up = layer + "mlp.gate_up_proj";
  for (int i = 0; i < 3; ++i) {
    const auto n = static_cast<std::size_t>(i);
    const std::string name = layer + "self_attn." + kProjections[n];
    list.add(name + ".weight", {rows[n], wide}, fused + ".weight", i, shares);
    if (options.attention_bias) list.add(name + ".bias", {rows[n]}, fused + ".bias", i, shares);
  }
  list.add(layer + "self_attn.o_proj.weight", {wide, attended});
  if (options.attention_bias) list.add(layer + "self_attn.o_proj.bias", {wide});
  list.add(layer + "post_attention_layernorm.weight", {wide});
  for (int i = 0; i < 2; ++i) {
    const std::string name = layer + (i == 0 ? "mlp.gate_proj" : "mlp.up_proj");
    list.add(name + ".weight", {hidden, wide}, gate_up + ".weight", i, 2);
    if (options.mlp_bias) list.add(name + ".bias", {hidden}, gate_up + ".bias", i, 2);
  }
  list.add(layer + "mlp.down_proj.weight", {wide, hidden});
  if (options.mlp_bias) list.add(layer + "mlp.down_proj.bias", {wide});
}

/// Whether a tied model's file holds a head of its own all the same.
bool has_other_head(const TensorSource& source, const PublishedNames& names) {
  const PublishedNames untied = llama_names(source.names(), false);
  if (!untied.contains(kHead) || !names.contains(kEmbedding)) return false;
  const auto memory = make_host_memory();
  const Tensor head = source.read(untied.at(kHead), *memory),
               embedding = source.read(names.at(kEmbedding), *memory);
  return head.shape() != embedding.shape() || head.dtype() != embedding.dtype() ||
         std::memcmp(head.raw(), embedding.raw(), head.bytes()) != 0;
}

}  // namespace

std::vector<PublishedTensor> llama_tensors(const LlamaOptions& options) {
  LlamaTensors list;
  list.add(kEmbedding, {options.vocabulary, options.channels});
  for (int i = 0; i < options.layers; ++i) add_block(list, fmt::format("model.layers.{}.", i), options);
  list.add("model.norm.weight", {options.channels});
  if (!options.tie_embeddings) list.add(kHead, {options.vocabulary, options.channels});
  return list.tensors;
}

PublishedNames llama_names(const std::vector<std::string>& stored, bool tied) {
  // Whatever stands before `embed_tokens` stands before the others as well.
  constexpr std::string_view kAnchor = "embed_tokens.weight";
  std::string prefix = "model.";
  for (const std::string& name : stored)
    if (name.ends_with(kAnchor)) prefix = name.substr(0, name.size() - kAnchor.size());
  PublishedNames names;
  for (const std::string& name : stored) {
    if (name.ends_with("rotary_emb.inv_freq")) continue;
    if (name == kHead) {
      if (!tied) names.emplace(name, name);
    } else if (name.starts_with(prefix)) {
      names.emplace("model." + name.substr(prefix.size()), name);
    } else {
      names.emplace(name, name);  // unknown, to be reported
    }
  }
  return names;
}

void import_llama(const std::filesystem::path& folder, Llama& model) {
  const std::vector<PublishedTensor> tensors = llama_tensors(model.options());
  const SafetensorsFolder source = SafetensorsFolder::open(folder);
  import_tensors(source, tensors, llama_names(source.names(), model.options().tie_embeddings),
                 model.parameters(), folder.string());
}

PublishedLlama describe_llama(const std::filesystem::path& folder) {
  PublishedLlama published = read_llama(folder);
  if (published.options.tie_embeddings) {
    const SafetensorsFolder source = SafetensorsFolder::open(folder);
    if (has_other_head(source, llama_names(source.names(), true))) published.options.tie_embeddings = false;
  }
  return published;
}

LoadedLlama load_llama(const std::filesystem::path& folder, Memory& memory, Communicator& tensor,
                       const ParameterSet::BuildOptions& build) {
  LoadedLlama loaded{.published = describe_llama(folder), .model = nullptr};
  loaded.model = std::make_unique<Llama>(loaded.published.options, tensor);
  loaded.model->build(memory, build);
  import_llama(folder, *loaded.model);
  return loaded;
}

}  // namespace bireme
