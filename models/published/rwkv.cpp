#include "models/published/rwkv.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "models/published/json_file.h"

namespace bireme {

namespace {

RwkvOptions rwkv_options_from(const JsonFile& config) {
  if (const std::string type = config.text("model_type", "rwkv"); type != "rwkv")
    config.fail(fmt::format("`model_type` is `{}`, not `rwkv`", type), "give a folder of an RwkvForCausalLM");
  RwkvOptions options;
  options.vocabulary = config.integer("vocab_size", 50277);
  options.channels = config.integer("hidden_size", 4096);
  options.layers = static_cast<int>(config.integer("num_hidden_layers", 32));
  options.attention_channels = config.integer("attention_hidden_size", 0);
  options.hidden = config.integer("intermediate_size", 0);
  options.context = config.integer("context_length", 1024);
  options.layer_norm_epsilon = static_cast<float>(config.number("layer_norm_epsilon", 1e-5));
  options.rescale_every = static_cast<int>(config.integer("rescale_every", 6));
  options.tie_embeddings = config.flag("tie_word_embeddings", false);
  try {
    options.validate();
  } catch (const Error& error) {
    config.fail(error.problem(), "check that the file belongs to an RWKV-4");
  }
  return options;
}

/// The sizes of an official file, from its tensors.
RwkvOptions rwkv_options_from(const std::filesystem::path& folder) {
  const SafetensorsFolder source = SafetensorsFolder::open(folder);
  rwkv_names(source.names(), folder.string());  // variants are refused before sizes are looked for
  const auto size = [&](const std::string& name, int dimension) {
    const Shape& shape = source.entry(name).shape;
    if (shape.rank() <= dimension)
      throw Error(ErrorKind::checkpoint, fmt::format("`{}` has the shape {}", name, to_string(shape)),
                  folder.string(), "give a folder with config.json, or the official tensors as they are");
    return shape[dimension];
  };
  RwkvOptions options;
  options.vocabulary = size("emb.weight", 0);
  options.channels = size("emb.weight", 1);
  options.attention_channels = size("blocks.0.att.time_decay", 0);
  options.hidden = size("blocks.0.ffn.key.weight", 0);
  options.layers = 0;
  while (source.contains(fmt::format("blocks.{}.att.time_decay", options.layers))) ++options.layers;
  return options;
}

}  // namespace

PublishedRwkv read_rwkv(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / "config.json")) return {.options = rwkv_options_from(folder)};
  const JsonFile config(folder / "config.json");
  return {.options = rwkv_options_from(config),
          .begin_token = config.integer("bos_token_id", 0),
          .end_token = config.integer("eos_token_id", 0)};
}

std::vector<Document> rwkv_documents(const PublishedRwkv& published, DType type) {
  const RwkvOptions& options = published.options;
  const nlohmann::ordered_json config = {
      {"architectures", {"RwkvForCausalLM"}},
      {"model_type", "rwkv"},
      {"vocab_size", options.vocabulary},
      {"context_length", options.context},
      {"hidden_size", options.channels},
      {"num_hidden_layers", options.layers},
      {"attention_hidden_size", options.inner()},
      {"intermediate_size", options.ffn()},
      // In double the float 1e-5 would read 9.99999975e-06.
      {"layer_norm_epsilon", std::stod(fmt::format("{}", options.layer_norm_epsilon))},
      {"rescale_every", options.rescale_every},
      {"tie_word_embeddings", options.tie_embeddings},
      {"bos_token_id", published.begin_token},
      {"eos_token_id", published.end_token},
      {"use_cache", true},
      {"dtype", type == DType::bf16 ? "bfloat16" : "float32"},
      {"transformers_version", "4.56.0"}};
  return {{"config.json", json_text(config, 2) + "\n"}};
}

void import_rwkv(const std::filesystem::path& folder, Rwkv& model) {
  const std::vector<PublishedTensor> tensors = rwkv_tensors(read_rwkv(folder).options);
  // Parameters under other names are heads that a training has added.
  for (const char* prefix : {"emb.", "blocks.", "ln_out.", "head."})
    require_same_model(tensors, model.parameters(), prefix, folder.string());
  const SafetensorsFolder source = SafetensorsFolder::open(folder);
  import_tensors(source, tensors, rwkv_names(source.names(), folder.string()), model.parameters(),
                 folder.string());
}

LoadedRwkv load_rwkv(const std::filesystem::path& folder, Memory& memory, Communicator& tensor,
                     const ParameterSet::BuildOptions& build) {
  LoadedRwkv loaded{.published = read_rwkv(folder), .model = nullptr};
  loaded.model = std::make_unique<Rwkv>(loaded.published.options, tensor);
  loaded.model->build(memory, build);
  import_rwkv(folder, *loaded.model);
  return loaded;
}

}  // namespace bireme
