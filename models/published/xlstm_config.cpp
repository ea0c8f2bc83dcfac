#include <spdlog/fmt/fmt.h>

#include <array>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "models/published/json_file.h"
#include "models/published/xlstm.h"

namespace bireme {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::pair<const char*, Activation>, 6> kActivations = {
    {{"gelu", Activation::gelu},
     {"swish", Activation::silu},
     {"relu", Activation::relu},
     {"relu^2", Activation::squared_relu},
     {"sigmoid", Activation::sigmoid},
     {"selu", Activation::selu}}};
constexpr std::array<std::pair<const char*, XlstmMemory>, 3> kMemories = {
    {{"associative", XlstmMemory::associative},
     {"learned", XlstmMemory::learned},
     {"learned_initial", XlstmMemory::learned_initial}}};

template <class Table>
auto named(const JsonFile& config, const char* key, const Table& table) {
  const std::string name = config.text(key, table[0].first);
  for (const auto& [known, value] : table)
    if (name == known) return value;
  config.fail(fmt::format("`{}` is `{}`, which is not known here", key, name), "correct the value");
}
template <class Table, class Value>
const char* name_of(const Table& table, const Value& value) {
  for (const auto& [known, entry] : table)
    if (entry == value) return known;
  return table[0].first;
}

/// An object within, or an empty one.
JsonFile object_or_empty(const JsonFile& config, const char* key) {
  return config.has(key) ? config.object(key) : JsonFile(nlohmann::json::object(), config.file());
}

/// The first of two spellings that is there.
std::int64_t integer_of(const JsonFile& config, const char* key, const char* other, std::int64_t fallback) {
  return config.integer(key, config.integer(other, fallback));
}

void require_no_bias(const JsonFile& config, const char* key) {
  if (config.flag(key, false))
    config.fail(fmt::format("`{}` is true", key), "give a model without biases in its linear layers");
}

XlstmOptions large_from(const JsonFile& config) {
  require_no_bias(config, "use_bias");
  if (const std::string mode = config.text("weight_mode", "single"); mode != "single" && mode != "fused")
    config.fail(fmt::format("`weight_mode` is `{}`", mode), "choose single or fused");
  XlstmOptions options;
  options.architecture = XlstmArchitecture::large;
  options.vocabulary = config.integer("vocab_size", 50304);
  options.channels = integer_of(config, "hidden_size", "embedding_dim", 4096);
  options.layers = static_cast<int>(integer_of(config, "num_hidden_layers", "num_blocks", 32));
  options.heads = static_cast<int>(config.integer("num_heads", 8));
  options.norm_epsilon = config.number("norm_eps", 1e-6);
  options.cell_epsilon = config.number("eps", 1e-6);
  options.key_factor = config.number("qk_dim_factor", 0.5);
  options.value_factor = config.number("v_dim_factor", 1);
  options.ffn_factor = config.number("ffn_proj_factor", 2.667);
  options.ffn_multiple = config.integer("ffn_round_up_to_multiple_of", 64);
  options.gate_soft_cap = config.number("gate_soft_cap", 15);
  options.logit_soft_cap = config.number("output_logit_soft_cap", 30);
  options.chunk = config.integer("chunk_size", 64);
  options.last_norm = config.flag("add_out_norm", true);
  options.tied = config.flag("tie_word_embeddings", false);
  options.memory = named(config, "memory", kMemories);
  return options;
}

std::string pattern_from(const JsonFile& config, int layers) {
  std::string pattern(static_cast<std::size_t>(layers), 'm');
  if (!config.has("slstm_at")) return config.has("mlstm_block") ? pattern : std::string(pattern.size(), 's');
  for (const std::int64_t index : config.integers("slstm_at")) {
    if (index < 0 || index >= layers)
      config.fail(fmt::format("`slstm_at` names block {} of {}", index, layers), "correct the list");
    pattern[static_cast<std::size_t>(index)] = 's';
  }
  return pattern;
}

XlstmOptions paper_from(const JsonFile& config) {
  require_no_bias(config, "bias");
  XlstmOptions options;
  options.architecture = XlstmArchitecture::paper;
  options.vocabulary = config.integer("vocab_size");
  options.channels = config.integer("embedding_dim", 128);
  options.layers = static_cast<int>(config.integer("num_blocks", 1));
  options.context = std::max<std::int64_t>(0, config.integer("context_length", 0));
  options.last_norm = config.flag("add_post_blocks_norm", true);
  options.tied = config.flag("tie_weights", false);
  options.pattern = pattern_from(config, options.layers);
  const JsonFile mlstm = object_or_empty(object_or_empty(config, "mlstm_block"), "mlstm");
  options.convolution = static_cast<int>(mlstm.integer("conv1d_kernel_size", 4));
  options.projection_block = static_cast<int>(mlstm.integer("qkv_proj_blocksize", 4));
  options.heads = static_cast<int>(mlstm.integer("num_heads", 4));
  options.projection_factor = mlstm.number("proj_factor", 2);
  options.memory = named(mlstm, "memory", kMemories);
  const JsonFile outer = object_or_empty(config, "slstm_block"), slstm = object_or_empty(outer, "slstm"),
                 ffn = object_or_empty(outer, "feedforward");
  options.slstm_heads = static_cast<int>(slstm.integer("num_heads", 4));
  options.slstm_convolution = static_cast<int>(slstm.integer("conv1d_kernel_size", 4));
  options.function = slstm.text("function", "slstm") == "lstm" ? SlstmFunction::lstm : SlstmFunction::slstm;
  options.slstm_ffn_factor = ffn.number("proj_factor", 1.3);
  options.activation = named(ffn, "act_fn", kActivations);
  return options;
}

}  // namespace

PublishedXlstm read_xlstm(const std::filesystem::path& folder) {
  const JsonFile config(folder / "config.json");
  const std::string type = config.text("model_type", "xlstm");
  if (type != "xlstm" && type != "xlstm_paper")
    config.fail(fmt::format("`model_type` is `{}`, not `xlstm` or `xlstm_paper`", type),
                "give a folder of an xLSTM");
  PublishedXlstm published{.options = type == "xlstm" ? large_from(config) : paper_from(config)};
  published.begin_token = config.integer("bos_token_id", -1);
  published.end_token = config.integer("eos_token_id", -1);
  published.pad_token = config.integer("pad_token_id", -1);
  try {
    published.options.validate();
  } catch (const Error& error) {  // what the settings of a run may not be, a folder may not be either
    config.fail(error.problem(), "check that the file belongs to an xLSTM");
  }
  return published;
}

namespace {

Json xlstm_token(std::int64_t id) { return id < 0 ? Json() : Json(id); }
const char* dtype_name(DType type) { return type == DType::bf16 ? "bfloat16" : "float32"; }

/// The width of the feed-forward part is published as a factor: one that gives it back when rounded up.
double ffn_factor(const XlstmOptions& options, double usual) {
  return options.hidden_width > 0
             ? static_cast<double>(options.hidden_width) / static_cast<double>(options.channels)
             : usual;
}
std::int64_t ffn_multiple(const XlstmOptions& options) {
  return options.hidden_width > 0 && options.hidden_width % options.ffn_multiple != 0 ? 1
                                                                                      : options.ffn_multiple;
}

Json large_config(const PublishedXlstm& published, DType type) {
  const XlstmOptions& options = published.options;
  Json config = {{"architectures", {"xLSTMForCausalLM"}},
                 {"model_type", "xlstm"},
                 {"vocab_size", options.vocabulary},
                 {"hidden_size", options.channels},
                 {"embedding_dim", options.channels},
                 {"num_hidden_layers", options.layers},
                 {"num_blocks", options.layers},
                 {"num_heads", options.heads},
                 {"use_bias", false},
                 {"norm_eps", options.norm_epsilon},
                 {"eps", options.cell_epsilon},
                 {"norm_reduction_force_float32", true},
                 {"add_out_norm", options.last_norm},
                 {"qk_dim_factor", options.key_factor},
                 {"v_dim_factor", options.value_factor},
                 {"ffn_proj_factor", ffn_factor(options, options.ffn_factor)},
                 {"ffn_round_up_to_multiple_of", ffn_multiple(options)},
                 {"gate_soft_cap", options.gate_soft_cap},
                 {"output_logit_soft_cap", options.logit_soft_cap},
                 {"weight_mode", "single"},
                 {"chunk_size", options.chunk},
                 {"mode", "inference"},
                 {"chunkwise_kernel", "chunkwise--native_autograd"},
                 {"sequence_kernel", "native_sequence__native"},
                 {"step_kernel", "native"},
                 {"return_last_states", true},
                 {"autocast_kernel_dtype", type == DType::bf16 ? "bfloat16" : "float32"},
                 {"inference_state_dtype", "float32"},
                 {"max_inference_chunksize", 16384},
                 {"use_cache", true},
                 {"tie_word_embeddings", options.tied},
                 {"bos_token_id", xlstm_token(published.begin_token)},
                 {"eos_token_id", xlstm_token(published.end_token)},
                 {"pad_token_id", xlstm_token(published.pad_token)},
                 {"dtype", dtype_name(type)},
                 {"torch_dtype", dtype_name(type)}};
  if (options.memory != XlstmMemory::associative) config["memory"] = name_of(kMemories, options.memory);
  return config;
}

Json paper_config(const PublishedXlstm& published, DType type) {
  const XlstmOptions& options = published.options;
  Json slstm_at = Json::array();
  for (int i = 0; i < options.layers; ++i)
    if (options.is_slstm(i)) slstm_at.push_back(i);
  Json mlstm = {{"conv1d_kernel_size", options.convolution},
                {"qkv_proj_blocksize", options.projection_block},
                {"num_heads", options.heads},
                {"proj_factor", options.projection_factor},
                {"round_proj_up_to_multiple_of", 64},
                {"round_proj_up_dim_up", true}};
  if (options.memory != XlstmMemory::associative) mlstm["memory"] = name_of(kMemories, options.memory);
  const Json slstm = {{"num_heads", options.heads_of_slstm()},
                      {"conv1d_kernel_size", options.slstm_convolution},
                      {"group_norm_weight", true},
                      {"function", options.function == SlstmFunction::lstm ? "lstm" : "slstm"},
                      {"backend", "vanilla"}};
  const Json feedforward = {{"proj_factor", ffn_factor(options, options.slstm_ffn_factor)},
                            {"act_fn", name_of(kActivations, options.activation)}};
  return {{"architectures", {"xLSTMLMModel"}},
          {"model_type", "xlstm_paper"},
          {"vocab_size", options.vocabulary},
          {"embedding_dim", options.channels},
          {"num_blocks", options.layers},
          {"context_length", options.context > 0 ? options.context : -1},
          {"slstm_at", slstm_at},
          {"add_post_blocks_norm", options.last_norm},
          {"bias", false},
          {"dropout", 0.0},
          {"tie_weights", options.tied},
          {"mlstm_block", {{"mlstm", mlstm}}},
          {"slstm_block", {{"slstm", slstm}, {"feedforward", feedforward}}},
          {"bos_token_id", xlstm_token(published.begin_token)},
          {"eos_token_id", xlstm_token(published.end_token)},
          {"pad_token_id", xlstm_token(published.pad_token)},
          {"dtype", dtype_name(type)}};
}

}  // namespace

std::vector<Document> xlstm_documents(const PublishedXlstm& published, DType type) {
  if (published.options.architecture == XlstmArchitecture::paper)
    return {{"config.json", json_text(paper_config(published, type), 2) + "\n"}};
  Json generation = Json::object();
  if (published.begin_token >= 0) generation["bos_token_id"] = published.begin_token;
  if (published.end_token >= 0) generation["eos_token_id"] = published.end_token;
  if (published.pad_token >= 0) generation["pad_token_id"] = published.pad_token;
  return {{"config.json", json_text(large_config(published, type), 2) + "\n"},
          {"generation_config.json", json_text(generation, 2) + "\n"}};
}

}  // namespace bireme
