#include "models/published/xlstm.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "core/base/error.h"
#include "models/published/split_source.h"

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
  const Tensor vanilla(*memory, recurrent.whole_shape(), DType::f64),
      ordered(*memory, bias.whole_shape(), DType::f64);
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = 0; i < units; ++i)
        vanilla.data<double>()[(h * rows + row) * units + i] = r.data<double>()[(h * units + i) * rows + row];
      const std::int64_t gate = row / units, unit = row % units;
      ordered.data<double>()[(gate * heads + h) * units + unit] = b.data<double>()[h * rows + row];
    }
  const auto take = [&](const Tensor& whole, const Parameter& parameter) {
    const Tensor part(*memory, parameter.shape(), DType::f64);
    copy_part(whole, part, parameter.partition());
    copy(part, parameter.value());
  };
  take(vanilla, recurrent);
  take(ordered, bias);
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

/// The tensors of a large model one by one, also where it was stored in `weight_mode` "fused".
SplitSource split_fused(const TensorSource& stored, const XlstmOptions& options, const std::string& where) {
  SplitSource source(stored);
  if (options.architecture != XlstmArchitecture::large) return source;
  const std::int64_t keys = options.keys(), values = options.values(), hidden = options.large_hidden();
  for (int i = 0; i < options.layers; ++i) {
    const std::string block = fmt::format("backbone.blocks.{}.", i), layer = block + "mlstm_layer.";
    source.split(layer + "qkv_opreact.weight",
                 {{layer + "q.weight", keys},
                  {layer + "k.weight", keys},
                  {layer + "v.weight", values},
                  {layer + "ogate_preact.weight", values}},
                 where);
    for (const char* kind : {"weight", "bias"}) {
      const auto gate = [&](const char* name) { return fmt::format("{}{}.{}", layer, name, kind); };
      source.split(gate("ifgate_preact"),
                   {{gate("igate_preact"), options.heads}, {gate("fgate_preact"), options.heads}}, where);
    }
    source.split(block + std::string(kGateAndUp),
                 {{block + "ffn.proj_up_gate.weight", hidden}, {block + "ffn.proj_up.weight", hidden}},
                 where);
  }
  return source;
}

/// Parameters under other names are heads that a training has added.
bool is_published(const std::string& name) {
  return std::ranges::any_of(
      std::initializer_list<const char*>{"backbone.", "token_embedding.", "xlstm_block_stack.", "lm_head."},
      [&](const char* prefix) { return name.starts_with(prefix); });
}

}  // namespace

std::vector<PublishedTensor> xlstm_tensors(const Xlstm& model) {
  std::vector<PublishedTensor> tensors;
  const ParameterSet& parameters = model.parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name();
    if (!is_published(name)) continue;
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
  const SafetensorsFolder stored = SafetensorsFolder::open(folder);
  const SplitSource source = split_fused(stored, model.options(), folder.string());
  std::vector<PublishedTensor> tensors = xlstm_tensors(model);
  PublishedNames names = xlstm_names(source.names());
  if (model.options().tied) names.erase("lm_head.weight");
  take_cuda_layouts(source, model.parameters(), tensors, names);
  import_tensors(source, tensors, names, model.parameters(), folder.string());
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
