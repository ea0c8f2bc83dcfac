#include "models/published/xlstm.h"

#include <spdlog/fmt/fmt.h>

#include <string_view>

#include "core/base/error.h"
#include "core/base/files.h"

namespace bireme {

namespace {

constexpr std::string_view kGateAndUp = "ffn.proj_up_gate_z.weight";
constexpr std::string_view kRecurrent = "slstm_cell._recurrent_kernel_", kBias = "slstm_cell._bias_";

/// Of an sLSTM whose recurrent weights lie as [head, in, gate and out]: brings them, and the biases [head,
/// gate, unit], into the order of the vanilla layout.
void import_cuda_layout(const TensorSource& source, const std::string& recurrent_name,
                        const std::string& bias_name, Parameter& recurrent, Parameter& bias) {
  const auto memory = make_host_memory();
  const Tensor r = convert(*memory, source.read(recurrent_name, *memory), DType::f64),
               b = convert(*memory, source.read(bias_name, *memory), DType::f64);
  const std::int64_t heads = r.shape()[0], units = r.shape()[1], rows = 4 * units;
  const Tensor vanilla(*memory, recurrent.shape(), DType::f64), ordered(*memory, bias.shape(), DType::f64);
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = 0; i < units; ++i)
        vanilla.data<double>()[(h * rows + row) * units + i] = r.data<double>()[(h * units + i) * rows + row];
      const std::int64_t gate = row / units, unit = row % units;
      ordered.data<double>()[(gate * heads + h) * units + unit] = b.data<double>()[h * rows + row];
    }
  copy(vanilla, recurrent.value());
  copy(ordered, bias.value());
}

/// Imports what lies in the cuda layout, and takes it off both lists.
void take_cuda_layouts(const TensorSource& source, ParameterSet& parameters,
                       std::vector<PublishedTensor>& tensors, PublishedNames& names) {
  std::vector<std::string> stems;
  for (const PublishedTensor& tensor : tensors) {
    if (!tensor.name.ends_with(kRecurrent) || !names.contains(tensor.name)) continue;
    const std::string stem = tensor.name.substr(0, tensor.name.size() - kRecurrent.size());
    const Shape& shape = tensor.shape;
    const bool is_cuda = source.entry(names.at(tensor.name)).shape == Shape{shape[0], shape[2], shape[1]};
    if (is_cuda && names.contains(stem + std::string(kBias))) stems.push_back(stem);
  }
  for (const std::string& stem : stems) {
    const std::string recurrent = stem + std::string(kRecurrent), bias = stem + std::string(kBias);
    import_cuda_layout(source, names.at(recurrent), names.at(bias), *parameters.find(recurrent),
                       *parameters.find(bias));
    for (const std::string& name : {recurrent, bias}) {
      names.erase(name);
      std::erase_if(tensors, [&](const PublishedTensor& tensor) { return tensor.name == name; });
    }
  }
}

}  // namespace

std::vector<PublishedTensor> xlstm_tensors(const Xlstm& model) {
  std::vector<PublishedTensor> tensors;
  const ParameterSet& parameters = model.parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name();
    Shape shape = parameters[i].whole_shape();
    if (!name.ends_with(kGateAndUp)) {
      tensors.push_back({.name = name, .shape = shape, .parameter = name});
      continue;
    }
    shape[0] /= 2;
    const std::string stem = name.substr(0, name.size() - kGateAndUp.size()) + "ffn.proj_up";
    tensors.push_back(
        {.name = stem + "_gate.weight", .shape = shape, .parameter = name, .block = 0, .blocks = 2});
    tensors.push_back({.name = stem + ".weight", .shape = shape, .parameter = name, .block = 1, .blocks = 2});
  }
  return tensors;
}

PublishedNames xlstm_names(const std::vector<std::string>& stored) {
  PublishedNames names;
  for (const std::string& name : stored)
    names.emplace(name == "embedding.weight" ? "backbone.embeddings.weight" : name, name);
  return names;
}

void import_xlstm(const std::filesystem::path& folder, Xlstm& model) {
  const SafetensorsFolder source = SafetensorsFolder::open(folder);
  std::vector<PublishedTensor> tensors = xlstm_tensors(model);
  PublishedNames names = xlstm_names(source.names());
  if (model.options().tied) names.erase("lm_head.weight");
  take_cuda_layouts(source, model.parameters(), tensors, names);
  import_tensors(source, tensors, names, model.parameters(), folder.string());
}

void export_xlstm(const std::filesystem::path& folder, const PublishedXlstm& published, const Xlstm& model,
                  const ExportOptions& options) {
  StagedFolder staged(folder);
  for (const Document& document : xlstm_documents(published, options.type)) {
    OutputFile file(staged.path() / document.name);
    file.write(document.text);
    file.finish();
  }
  export_tensors(staged.path(), "model", xlstm_tensors(model), model.parameters(), options);
  staged.commit();
}

LoadedXlstm load_xlstm(const std::filesystem::path& folder, Memory& memory, Communicator& tensor,
                       const ParameterSet::BuildOptions& build) {
  LoadedXlstm loaded{.published = read_xlstm(folder), .model = nullptr};
  loaded.model = std::make_unique<Xlstm>(loaded.published.options, tensor);
  loaded.model->build(memory, build);
  import_xlstm(folder, *loaded.model);
  return loaded;
}

}  // namespace bireme
