#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/llama.h"
#include "models/published/published_tensor.h"

namespace bireme {

/// What a folder in the format of Hugging Face's LlamaForCausalLM says beside its weights.
struct PublishedLlama {
  LlamaOptions options;
  std::int64_t begin_token = -1;  ///< -1: none
  std::vector<std::int64_t>
      end_tokens;  ///< any of these ends a text; generation_config.json counts before config.json
  std::int64_t pad_token = -1;  ///< -1: none
};

/// Reads config.json, and generation_config.json where there is one. Absent keys have the defaults of Hugging
/// Face's LlamaConfig; rotary settings are read in both spellings, rope_parameters (transformers 5) and
/// rope_theta with rope_scaling.
/// @throws Error (checkpoint) naming file and key for another kind of model and for values that cannot be
PublishedLlama read_llama(const std::filesystem::path& folder);
/// The same for a folder with weights: a head that is said to be tied, but is stored, is not tied.
PublishedLlama describe_llama(const std::filesystem::path& folder);
/// config.json, in both spellings, and generation_config.json.
std::vector<Document> llama_documents(const PublishedLlama& published, DType type);

/// The published tensors as parts of the parameters: q, k, v and gate, up are fused there.
std::vector<PublishedTensor> llama_tensors(const LlamaOptions& options);
/// Published name → name in the file, for files whose names begin with `model.`, another prefix, or none.
/// Buffers of older files (rotary_emb.inv_freq) are left out, and so is the head of a tied model.
PublishedNames llama_names(const std::vector<std::string>& stored, bool tied);

/// Fills a model from model.safetensors, or its shards.
/// @throws Error (checkpoint) naming each tensor that is missing, unknown or misshapen, with both shapes
void import_llama(const std::filesystem::path& folder, Llama& model);

struct LoadedLlama {
  PublishedLlama published;
  std::unique_ptr<Llama> model;
};
/// A model from a folder.
/// @param build  types and buffers of the parameters
LoadedLlama load_llama(const std::filesystem::path& folder, Memory& memory, Communicator& tensor,
                       const ParameterSet::BuildOptions& build = {.gradients = false});

}  // namespace bireme
