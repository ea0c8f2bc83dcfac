#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/text/tokenizer.h"
#include "distributed/checkpoint_reader.h"
#include "launch/commands.h"
#include "launch/model_folder.h"
#include "launch/options.h"
#include "launch/terminal.h"
#include "models/published/language_model.h"
#include "models/published/vision_transformer.h"
#include "models/registry.h"

namespace bireme {

namespace fs = std::filesystem;

namespace {

void require_free(const fs::path& output, bool force) {
  if (!force && fs::exists(output))
    throw Error(ErrorKind::usage, "the output exists already", output.string(),
                "name a new folder, or replace it with --force");
}

/// Weights that are damaged must not be handed on; a Hugging Face folder has no checksums to hold it to.
void require_whole(const fs::path& model) {
  if (folder_kind(model) == FolderKind::checkpoint) (void)CheckpointReader::open(model, Verify::checksums);
}

/// @return the number of parameters
std::int64_t export_pictures_model(const fs::path& source, const fs::path& output, const ExportOptions& how) {
  const std::shared_ptr<Memory> memory = make_host_memory();
  const std::unique_ptr<Communicator> alone = make_single_process();
  const LoadedVisionTransformer loaded = load_vision_transformer(source, *memory, *alone);
  export_vision_transformer(
      output, {.published = loaded.published, .parameters = *loaded.parameters, .options = how});
  return loaded.published.options.parameter_count();
}

/// With its tokenizer, if it has one.
std::int64_t export_text_model(const fs::path& source, const fs::path& output, const ExportOptions& how) {
  const std::shared_ptr<Memory> memory = make_host_memory();
  const std::unique_ptr<Communicator> alone = make_single_process();
  const auto loaded = open_language_model(source, *memory, *alone);
  std::vector<Document> tokenizer;
  if (holds_tokenizer(source)) {
    const std::shared_ptr<const Tokenizer> found = open_tokenizer(source.string());
    for (const TokenizerFile& file : found->files()) tokenizer.push_back({file.name, file.bytes});
  }
  export_language_model(output, *loaded, tokenizer, how);
  return loaded->model().parameters().elements();
}

}  // namespace

int run_export(Arguments arguments) {
  Options options("bireme export",
                  "writes the weights of a model as a Hugging Face folder, without the training state");
  options.required("model", "M", "checkpoint, run or Hugging Face folder")
      .required("output", "MODEL_DIR", "folder to write: config.json and model.safetensors")
      .value("precision", "TYPE", "fp32 or bf16", "fp32")
      .value("shard-size", "BYTES", "split the weights into files of at most this size; 0: one file", "0")
      .flag("force", "replace what stands at the output")
      .example("bireme export --model runs/first --output models/first")
      .example("bireme export --model runs/first --output models/first-bf16 --precision bf16");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;
  const fs::path output = options.path("output");
  const DType type = options.choice("precision", {"fp32", "bf16"}) == "bf16" ? DType::bf16 : DType::f32;
  const std::int64_t shard_bytes = options.integer("shard-size", 0);
  require_free(output, options.flag("force"));

  const fs::path source = resolve_model_folder(options.path("model"));
  require_whole(source);
  const ExportOptions how{.type = type, .shard_bytes = shard_bytes};
  const std::int64_t count = model_type_of(source).name == "vit" ? export_pictures_model(source, output, how)
                                                                 : export_text_model(source, output, how);
  if (options.json()) {
    const nlohmann::ordered_json result = {{"model", source.string()},
                                           {"output", output.string()},
                                           {"parameters", count},
                                           {"precision", options.text("precision")}};
    fmt::print("{}\n", json_text(result));
  } else {
    fmt::print("wrote {} parameters of {} in {} to {}\n", count, source.string(), options.text("precision"),
               output.string());
  }
  return 0;
}

}  // namespace bireme
