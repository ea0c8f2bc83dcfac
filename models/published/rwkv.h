#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/published/published_tensor.h"
#include "models/rwkv.h"

namespace bireme {

/// What a published folder says beside the weights of an RWKV-4.
struct PublishedRwkv {
  RwkvOptions options;
  std::int64_t begin_token = 0, end_token = 0;
};

/// Reads config.json of a Hugging Face RwkvForCausalLM. A folder without one, such as an official file
/// converted to safetensors, is taken as its tensors tell, whose names are the official ones then.
/// @throws Error (checkpoint) naming file and key for another kind of model and values that cannot be; naming
/// tensor and reason for variants that are not RWKV-4 as it was published
PublishedRwkv read_rwkv(const std::filesystem::path& folder);

/// config.json.
std::vector<Document> rwkv_documents(const PublishedRwkv& published, DType type);

/// The tensors of a Hugging Face folder and the parameters that hold them, which have the official names.
std::vector<PublishedTensor> rwkv_tensors(const RwkvOptions& options);
/// The names of a file brought to those of rwkv_tensors: as they are, without `rwkv.` before them, or
/// official.
/// @throws Error (checkpoint) for the tensors of variants
PublishedNames rwkv_names(const std::vector<std::string>& stored, const std::string& where);

/// Fills a model from model.safetensors, or its shards.
/// @throws Error (checkpoint) naming each tensor that is missing, unknown or misshapen, with both shapes; or
/// the first that the network has in another size
void import_rwkv(const std::filesystem::path& folder, Rwkv& model);

/// A model from a folder.
struct LoadedRwkv {
  PublishedRwkv published;
  std::unique_ptr<Rwkv> model;
};
/// @param build  types and buffers of the parameters
LoadedRwkv load_rwkv(const std::filesystem::path& folder, Memory& memory, Communicator& tensor,
                     const ParameterSet::BuildOptions& build = {.gradients = false});

}  // namespace bireme
