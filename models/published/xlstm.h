#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/published/published_tensor.h"
#include "models/xlstm.h"

namespace bireme {

/// What an xLSTM's folder says beside its weights. The large architecture has the format of Hugging Face's
/// xLSTMForCausalLM (`model_type` xlstm), which opens in transformers as it is. For the paper's there is
/// none: its folders hold the package's names and settings (`model_type` xlstm_paper).
struct PublishedXlstm {
  XlstmOptions options;
  std::int64_t begin_token = -1, end_token = -1, pad_token = -1;  ///< -1: none
};

/// Reads config.json. Absent keys have the defaults of the published configurations.
/// @throws Error (checkpoint) naming file and key for another kind of model and for values that cannot be
PublishedXlstm read_xlstm(const std::filesystem::path& folder);
/// config.json, and generation_config.json of the large architecture.
std::vector<Document> xlstm_documents(const PublishedXlstm& published, DType type);

/// The published tensors as parts of the parameters: gate and up of the large architecture's feed-forward
/// part are one there.
std::vector<PublishedTensor> xlstm_tensors(const Xlstm& model);
/// Published name → name in the file; takes the package's name of the large model's embedding as well.
PublishedNames xlstm_names(const std::vector<std::string>& stored);

/// Fills a model from model.safetensors, or its shards. Recurrent weights and biases of an sLSTM may lie in
/// either of the package's layouts, vanilla or cuda, and projections of the large model one by one or fused.
/// @throws Error (checkpoint) naming each tensor that is missing, unknown or misshapen, with both shapes
void import_xlstm(const std::filesystem::path& folder, Xlstm& model);

struct LoadedXlstm {
  PublishedXlstm published;
  std::unique_ptr<Xlstm> model;
};
/// @param build  types and buffers of the parameters
LoadedXlstm load_xlstm(const std::filesystem::path& folder, Memory& memory, Communicator& tensor,
                       const ParameterSet::BuildOptions& build = {.gradients = false});

}  // namespace bireme
