#include "launch/checkpoint_files.h"

namespace bireme {

namespace {

/// One of the logical blocks of the parameter that holds it.
CheckpointTensor published_tensor(const PublishedTensor& tensor, const ParameterSet& parameters) {
  const PublishedPart part = local_part(tensor, *parameters.find(tensor.parameter));
  return {.name = tensor.name, .local = part.local, .whole = tensor.shape, .partition = part.partition};
}

}  // namespace

CheckpointTensor whole_parameter(const std::string& name, const Parameter& parameter, const Tensor& local) {
  return {.name = name, .local = local, .whole = parameter.whole_shape(), .partition = parameter.partition()};
}

CheckpointFile published_file(const std::string& name, const std::vector<PublishedTensor>& tensors,
                              const ParameterSet& parameters) {
  CheckpointFile file{.name = name, .tensors = {}};
  for (const PublishedTensor& tensor : tensors) file.tensors.push_back(published_tensor(tensor, parameters));
  return file;
}

CheckpointContent published_content(const PublishedLanguageModel& model, const Tokenizer* tokenizer) {
  CheckpointContent content;
  content.files = {published_file("model.safetensors", model.tensors(), model.model().parameters())};
  for (const Document& document : model.documents(DType::f32)) content.texts[document.name] = document.text;
  if (tokenizer != nullptr)
    for (const TokenizerFile& file : tokenizer->files()) content.texts[file.name] = file.bytes;
  return content;
}

}  // namespace bireme
