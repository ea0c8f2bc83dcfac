#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "models/published/json_file.h"
#include "models/published/llama.h"

namespace bireme {

namespace {

void require_supported_llama(const JsonFile& config) {
  if (const std::string type = config.text("model_type", "llama"); type != "llama")
    config.fail(fmt::format("`model_type` is `{}`, not `llama`", type),
                "give a folder of a LlamaForCausalLM");
  if (const std::string activation = config.text("hidden_act", "silu"); activation != "silu")
    config.fail(fmt::format("`hidden_act` is `{}`; only `silu` is computed here", activation),
                "give a model that was trained with silu");
  if (config.integer("pretraining_tp", 1) != 1)
    config.fail("`pretraining_tp` is not 1", "set it to 1: it only changes the order of sums");
}

/// In either spelling; the context is that of the whole model.
RotaryOptions rotary_from(const JsonFile& config, std::int64_t context) {
  RotaryOptions rotary;
  rotary.theta = config.number("rope_theta", rotary.theta);
  rotary.original_positions = context;
  const char* key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!config.has(key)) return rotary;
  const JsonFile json = config.object(key);
  rotary.theta = json.number("rope_theta", rotary.theta);
  rotary.type = json.text("rope_type", json.text("type", "default"));
  rotary.factor = json.number("factor", 1);
  rotary.low_frequency_factor = json.number("low_freq_factor", rotary.low_frequency_factor);
  rotary.high_frequency_factor = json.number("high_freq_factor", rotary.high_frequency_factor);
  rotary.original_positions = json.integer("original_max_position_embeddings", context);
  rotary.beta_fast = json.number("beta_fast", rotary.beta_fast);
  rotary.beta_slow = json.number("beta_slow", rotary.beta_slow);
  rotary.attention_factor = json.number("attention_factor", 0);
  return rotary;
}

LlamaOptions llama_options_from(const JsonFile& config) {
  require_supported_llama(config);
  LlamaOptions options;
  options.vocabulary = config.integer("vocab_size", 32000);
  options.channels = config.integer("hidden_size", 4096);
  options.hidden = config.integer("intermediate_size", 11008);
  options.layers = static_cast<int>(config.integer("num_hidden_layers", 32));
  options.heads = static_cast<int>(config.integer("num_attention_heads", 32));
  options.kv_heads = static_cast<int>(config.integer("num_key_value_heads", 0));
  options.head_dim = config.integer("head_dim", 0);
  options.epsilon = static_cast<float>(config.number("rms_norm_eps", 1e-6));
  options.attention_bias = config.flag("attention_bias", false);
  options.mlp_bias = config.flag("mlp_bias", false);
  options.tie_embeddings = config.flag("tie_word_embeddings", false);
  options.context = config.integer("max_position_embeddings", 2048);
  options.init_std = config.number("initializer_range", 0.02);
  options.rotary = rotary_from(config, options.context);
  return options;
}

}  // namespace

PublishedLlama read_llama(const std::filesystem::path& folder) {
  const JsonFile config(folder / "config.json");
  PublishedLlama published;
  published.options = llama_options_from(config);
  published.begin_token = config.integer("bos_token_id", 1);
  published.pad_token = config.integer("pad_token_id", -1);
  published.end_tokens = config.integers("eos_token_id");
  if (!config.has("eos_token_id")) published.end_tokens = {2};
  if (std::filesystem::exists(folder / "generation_config.json")) {
    const JsonFile generation(folder / "generation_config.json");
    if (generation.has("eos_token_id")) published.end_tokens = generation.integers("eos_token_id");
  }
  try {
    published.options.validate();
  } catch (const Error& error) {  // what the settings of a run may not be, a folder may not be either
    config.fail(error.problem(), "check that the file belongs to a LLaMA model");
  }
  return published;
}

namespace {

using Json = nlohmann::ordered_json;

Json scaling_of(const RotaryOptions& rotary) {
  Json json = {{"rope_type", rotary.type}};
  if (rotary.type != "default") json["factor"] = rotary.factor;
  if (rotary.type == "llama3") {
    json["low_freq_factor"] = rotary.low_frequency_factor;
    json["high_freq_factor"] = rotary.high_frequency_factor;
  }
  if (rotary.type == "llama3" || rotary.type == "yarn")
    json["original_max_position_embeddings"] = rotary.original_positions;
  if (rotary.type == "yarn") {
    json["beta_fast"] = rotary.beta_fast;
    json["beta_slow"] = rotary.beta_slow;
    if (rotary.attention_factor != 0) json["attention_factor"] = rotary.attention_factor;
  }
  return json;
}

Json token(std::int64_t id) { return id < 0 ? Json() : Json(id); }
Json tokens(const std::vector<std::int64_t>& ids) {
  return ids.empty() ? Json() : ids.size() == 1 ? Json(ids.front()) : Json(ids);
}

Json config_of(const PublishedLlama& published, DType type) {
  const LlamaOptions& options = published.options;
  const AttentionHeads heads = options.attention_heads();
  Json parameters = scaling_of(options.rotary);
  parameters["rope_theta"] = options.rotary.theta;
  const char* name = type == DType::bf16 ? "bfloat16" : "float32";
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", options.vocabulary},
          {"hidden_size", options.channels},
          {"intermediate_size", options.hidden_width()},
          {"num_hidden_layers", options.layers},
          {"num_attention_heads", heads.queries},
          {"num_key_value_heads", heads.keys},
          {"head_dim", heads.dimension},
          {"hidden_act", "silu"},
          {"max_position_embeddings", options.context},
          {"initializer_range", options.init_std},
          // In double the float 1e-6 would read 9.99999997e-07.
          {"rms_norm_eps", std::stod(fmt::format("{}", options.epsilon))},
          {"attention_bias", options.attention_bias},
          {"mlp_bias", options.mlp_bias},
          {"attention_dropout", 0.0},
          {"tie_word_embeddings", options.tie_embeddings},
          {"use_cache", true},
          {"rope_theta", options.rotary.theta},
          {"rope_scaling", options.rotary.type == "default" ? Json() : scaling_of(options.rotary)},
          {"rope_parameters", parameters},
          {"bos_token_id", token(published.begin_token)},
          {"eos_token_id", tokens(published.end_tokens)},
          {"pad_token_id", token(published.pad_token)},
          {"torch_dtype", name},
          {"dtype", name}};
}

}  // namespace

std::vector<Document> llama_documents(const PublishedLlama& published, DType type) {
  Json generation = Json::object();
  if (published.begin_token >= 0) generation["bos_token_id"] = published.begin_token;
  if (!published.end_tokens.empty()) generation["eos_token_id"] = tokens(published.end_tokens);
  if (published.pad_token >= 0) generation["pad_token_id"] = published.pad_token;
  return {{"config.json", json_text(config_of(published, type), 2) + "\n"},
          {"generation_config.json", json_text(generation, 2) + "\n"}};
}

}  // namespace bireme
