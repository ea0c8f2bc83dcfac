#include <spdlog/fmt/fmt.h>

#include <array>
#include <span>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "models/published/rwkv.h"

namespace bireme {

namespace {

using Name = std::pair<std::string_view, std::string_view>;

/// Parts of names, official and in Hugging Face's folders. Within a block.
constexpr std::array<Name, 5> kTimeMix = {{{"att.time_decay", "attention.time_decay"},
                                           {"att.time_first", "attention.time_first"},
                                           {"att.time_mix_k", "attention.time_mix_key"},
                                           {"att.time_mix_v", "attention.time_mix_value"},
                                           {"att.time_mix_r", "attention.time_mix_receptance"}}};
constexpr std::array<Name, 2> kChannelMix = {{{"ffn.time_mix_k", "feed_forward.time_mix_key"},
                                              {"ffn.time_mix_r", "feed_forward.time_mix_receptance"}}};

struct Variant {
  std::string_view part;
  std::string_view reason;
};
/// Names that only variants have.
constexpr std::array<Variant, 10> kVariants = {
    {{"ffnPre", "a channel mixing in place of the first time mixing"},
     {"head_q", "a copying head"},
     {"head_k", "a copying head"},
     {"copy_mask", "a copying head"},
     {"tiny_", "an attention within the blocks"},
     {"pos_emb_", "position embeddings"},
     {"time_faaaa", "the matrix states of RWKV-5 or later"},
     {"time_maa", "the token shift of RWKV-6"},
     {".ln_x.", "the group norm of RWKV-5 or later"},
     {".gate.", "the output gate of RWKV-5 or later"}}};

std::string block_name(int i) { return fmt::format("blocks.{}.", i); }

void add_block(std::vector<PublishedTensor>& tensors, int i, const RwkvOptions& options) {
  const std::string own = block_name(i), published = "rwkv." + own;
  const std::int64_t d = options.channels, a = options.inner(), h = options.ffn();
  const auto add = [&](const std::string& name, const std::string& parameter, const Shape& shape) {
    tensors.push_back({.name = published + name, .shape = shape, .parameter = own + parameter});
  };
  if (i == 0) add("pre_ln.weight", "ln0.weight", {d}), add("pre_ln.bias", "ln0.bias", {d});
  for (const std::string norm : {"ln1", "ln2"})
    for (const std::string part : {".weight", ".bias"}) add(norm + part, norm + part, {d});
  for (const auto& [official, name] : kTimeMix) {
    const bool is_inner = official.find("mix") == std::string_view::npos;
    add(std::string(name), std::string(official), is_inner ? Shape{a} : Shape{1, 1, d});
  }
  for (const std::string weight : {"key", "value", "receptance"})
    add("attention." + weight + ".weight", "att." + weight + ".weight", {a, d});
  add("attention.output.weight", "att.output.weight", {d, a});
  for (const auto& [official, name] : kChannelMix) add(std::string(name), std::string(official), {1, 1, d});
  add("feed_forward.key.weight", "ffn.key.weight", {h, d});
  add("feed_forward.receptance.weight", "ffn.receptance.weight", {d, d});
  add("feed_forward.value.weight", "ffn.value.weight", {d, h});
}

void refuse_variants(const std::string& name, const std::string& where) {
  for (const Variant& variant : kVariants)
    if (name.find(variant.part) != std::string::npos)
      throw Error(ErrorKind::checkpoint,
                  fmt::format("`{}` belongs to a variant with {}, which is not RWKV-4", name, variant.reason),
                  where, "give a model of the plain RWKV-4 architecture");
}

void replace(std::string& name, std::string_view from, std::string_view to) {
  if (const std::size_t at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
}

/// The name in a Hugging Face folder of a stored one.
std::string published_name(std::string name) {
  if (name == "head.weight") return name;
  if (name.starts_with("rwkv.")) return name;
  if (name == "emb.weight") return "rwkv.embeddings.weight";
  for (const auto& list : {std::span<const Name>(kTimeMix), std::span<const Name>(kChannelMix)})
    for (const auto& [official, published] : list)
      if (name.ends_with(official)) {
        replace(name, official, published);
        return "rwkv." + name;
      }
  replace(name, ".ln0.", ".pre_ln.");
  replace(name, ".att.", ".attention.");
  replace(name, ".ffn.", ".feed_forward.");
  return "rwkv." + name;
}

}  // namespace

std::vector<PublishedTensor> rwkv_tensors(const RwkvOptions& options) {
  std::vector<PublishedTensor> tensors;
  const Shape table{options.vocabulary, options.channels};
  tensors.push_back({.name = "rwkv.embeddings.weight", .shape = table, .parameter = "emb.weight"});
  for (int i = 0; i < options.layers; ++i) add_block(tensors, i, options);
  for (const std::string part : {"ln_out.weight", "ln_out.bias"})
    tensors.push_back({.name = "rwkv." + part, .shape = {options.channels}, .parameter = part});
  if (!options.tie_embeddings)
    tensors.push_back({.name = "head.weight", .shape = table, .parameter = "head.weight"});
  return tensors;
}

PublishedNames rwkv_names(const std::vector<std::string>& stored, const std::string& where) {
  PublishedNames names;
  for (const std::string& name : stored) {
    refuse_variants(name, where);
    // A tensor that is there under two names is as wrong as an unknown one, and is reported like it.
    if (!names.emplace(published_name(name), name).second) names.emplace(name + " (again)", name);
  }
  return names;
}

}  // namespace bireme
