#pragma once

#include <string>
#include <vector>

#include "core/autograd/parameter.h"
#include "core/text/tokenizer.h"
#include "distributed/checkpoint.h"
#include "models/published/language_model.h"
#include "models/published/published_tensor.h"

namespace bireme {

/// A parameter, or something of its shape, under a name of its own.
CheckpointTensor whole_parameter(const std::string& name, const Parameter& parameter, const Tensor& local);

/// The tensors of a published file, each as the part of the parameter that holds it.
CheckpointFile published_file(const std::string& name, const std::vector<PublishedTensor>& tensors,
                              const ParameterSet& parameters);

/// A language model as a published folder, with its tokenizer where there is one.
CheckpointContent published_content(const PublishedLanguageModel& model, const Tokenizer* tokenizer);

}  // namespace bireme
