#include "models/published/vision_transformer.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/io/safetensors_writer.h"
#include "models/published/vision_transformer_names.h"

namespace bireme {

namespace {

constexpr const char* kHeadFile = "dino_head";

/// Query, key and value of a model without such biases are computed with zeros.
void clear_qkv_biases(ParameterSet& parameters, const std::string& prefix, int depth) {
  for (int i = 0; i < depth; ++i)
    fill(parameters.find(fmt::format("{}blocks.{}.attn.qkv.bias", prefix, i))->value(), 0);
}

}  // namespace

void import_vision_transformer(const std::filesystem::path& folder,
                               const PublishedVisionTransformer& published, ParameterSet& parameters,
                               const std::string& prefix) {
  require_same_model(vision_transformer_tensors(published.options, prefix), parameters, prefix,
                     folder.string());
  const SafetensorsFolder source = SafetensorsFolder::open(folder);
  if (!published.has_qkv_bias) clear_qkv_biases(parameters, prefix, published.options.depth);
  import_tensors(source, vision_transformer_tensors(published.options, prefix, published.has_qkv_bias),
                 vision_transformer_names(source.names()), parameters, folder.string());
}

void import_dino_head(const std::filesystem::path& folder, ParameterSet& parameters,
                      const std::string& prefix, const DinoHead& head) {
  const SafetensorsFolder source = SafetensorsFolder::open(folder, kHeadFile);
  PublishedNames names;
  for (const std::string& name : source.names()) names.emplace(name, name);
  const std::shared_ptr<Memory> memory = make_host_memory();
  for (const DinoHead::Buffer& buffer : head.buffers()) {
    const std::string name = buffer.name.substr(prefix.size());
    const Tensor stored = source.read(name, *memory);
    require_shape(name.c_str(), stored, buffer.value.shape());
    copy(stored, buffer.value);
    names.erase(name);
  }
  import_tensors(source, dino_head_tensors(parameters, prefix), names, parameters,
                 (folder / kHeadFile).string());
}

namespace {

void write_head(const std::filesystem::path& folder, const ExportVisionTransformer& what) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const PublishedTensor& tensor : dino_head_tensors(what.parameters, what.head_prefix))
    tensors.emplace_back(tensor.name, what.parameters.find(tensor.parameter)->value());
  for (const DinoHead::Buffer& buffer : what.head->buffers())
    tensors.emplace_back(buffer.name.substr(what.head_prefix.size()), buffer.value);
  write_safetensors(folder / (std::string(kHeadFile) + ".safetensors"), tensors);
}

}  // namespace

void export_vision_transformer(const std::filesystem::path& folder, const ExportVisionTransformer& what) {
  StagedFolder staged(folder);
  PublishedVisionTransformer published = what.published;
  published.head = what.head != nullptr ? std::optional(what.head->options()) : std::nullopt;
  write_documents(staged.path(), vision_transformer_documents(published, what.options.type));
  export_tensors(staged.path(), "model", vision_transformer_tensors(published.options, what.prefix),
                 what.parameters, what.options);
  if (what.head != nullptr) write_head(staged.path(), what);
  staged.commit();
}

LoadedVisionTransformer load_vision_transformer(const std::filesystem::path& folder, Memory& memory,
                                                Communicator& tensor,
                                                const ParameterSet::BuildOptions& build) {
  LoadedVisionTransformer loaded{.published = read_vision_transformer(folder),
                                 .parameters = std::make_unique<ParameterSet>(),
                                 .model = nullptr};
  const std::string prefix = "backbone.";
  loaded.model =
      std::make_unique<VisionTransformer>(loaded.published.options, *loaded.parameters, prefix, tensor);
  loaded.parameters->build(memory, build);
  import_vision_transformer(folder, loaded.published, *loaded.parameters, prefix);
  return loaded;
}

}  // namespace bireme
