#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/dino_head.h"
#include "models/published/published_tensor.h"
#include "models/vision_transformer.h"

namespace bireme {

/// What a folder in the format of Hugging Face's ViTModel says beside its weights: config.json,
/// preprocessor_config.json, and bireme.json, which foreign readers ignore.
struct PublishedVisionTransformer {
  VisionTransformerOptions options;
  std::vector<double> mean,
      deviation;  ///< of the pixels in 0 … 1, for each channel; empty where the folder does not say
  std::optional<DinoHeadOptions> head;  ///< of dino_head.safetensors
  bool has_qkv_bias = true;
};

/// Reads the JSON files. layer_norm_eps counts as it stands; positions are interpolated by the size rule
/// unless bireme.json says otherwise; absent keys have the defaults of Hugging Face's ViTConfig.
/// @throws Error (checkpoint) naming file and key for another kind of model, an activation other than GELU,
/// patches that are
///         not square, and values that cannot be
PublishedVisionTransformer read_vision_transformer(const std::filesystem::path& folder);

/// config.json, preprocessor_config.json (where mean and deviation are known) and bireme.json.
std::vector<Document> vision_transformer_documents(const PublishedVisionTransformer& published, DType type);

/// Fills a vision transformer registered under `prefix` from model.safetensors, or its shards. Accepts the
/// three spellings of the names, see vision_transformer_names.
/// @throws Error (checkpoint) naming each tensor that is missing, unknown or misshapen, with both shapes; or
/// the first that the network has in another size
void import_vision_transformer(const std::filesystem::path& folder,
                               const PublishedVisionTransformer& published, ParameterSet& parameters,
                               const std::string& prefix);
/// Fills a head registered under `prefix` from dino_head.safetensors, running statistics included.
void import_dino_head(const std::filesystem::path& folder, ParameterSet& parameters,
                      const std::string& prefix, const DinoHead& head);

struct ExportVisionTransformer {
  const PublishedVisionTransformer& published;
  const ParameterSet& parameters;  ///< not split over ranks
  std::string prefix = "backbone.";
  const DinoHead* head = nullptr;  ///< null: the backbone alone
  std::string head_prefix = "head.";
  ExportOptions options = {};
};
/// Writes the folder as a whole: it appears under its name when all of it is on the disk. @throws Error
/// (checkpoint)
void export_vision_transformer(const std::filesystem::path& folder, const ExportVisionTransformer& what);

/// A backbone from a folder, ready for inference.
struct LoadedVisionTransformer {
  PublishedVisionTransformer published;
  std::unique_ptr<ParameterSet> parameters;
  std::unique_ptr<VisionTransformer> model;
};
/// @param folder  a Hugging Face folder, or a checkpoint, which is one
/// @param build   types and buffers of the parameters
LoadedVisionTransformer load_vision_transformer(const std::filesystem::path& folder, Memory& memory,
                                                Communicator& tensor,
                                                const ParameterSet::BuildOptions& build = {
                                                    .gradients = false});

}  // namespace bireme
