#pragma once

#include <string>
#include <vector>

#include "models/dino_head.h"
#include "models/published/published_tensor.h"
#include "models/vision_transformer.h"

namespace bireme {

/// The tensors of a Hugging Face ViTModel folder and where they lie in a vision transformer registered under
/// `prefix`. With has_qkv_bias false the biases of query, key and value are left out.
std::vector<PublishedTensor> vision_transformer_tensors(const VisionTransformerOptions& options,
                                                        const std::string& prefix, bool has_qkv_bias = true);

/// The parameters of DINO's head under their official names, in dino_head.safetensors. Batch norm's running
/// statistics, which are no parameters, are DinoHead::buffers().
std::vector<PublishedTensor> dino_head_tensors(const ParameterSet& parameters, const std::string& prefix);

/// The names of a file brought to those of vision_transformer_tensors: classifiers prefix them with `vit.`,
/// and newer versions of transformers know the modules by other names. What is no part of the features
/// (pooler, classifier, mask token) is left out.
PublishedNames vision_transformer_names(const std::vector<std::string>& stored);

}  // namespace bireme
