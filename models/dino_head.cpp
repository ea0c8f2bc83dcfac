#include "models/dino_head.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>

#include "core/base/error.h"
#include "core/ops/linear/linear.h"
#include "core/ops/pointwise/pointwise.h"
#include "distributed/collective_ops.h"
#include "distributed/tensor_parallel.h"

namespace bireme {

void DinoHeadOptions::validate() const {
  const auto refuse = [](const std::string& problem, const std::string& remedy) {
    throw Error(ErrorKind::usage, problem, "projection head", remedy);
  };
  if (layers < 1) refuse(fmt::format("model.head_layers is {}", layers), "choose 1 or more, usually 3");
  if (in_dim < 1 || hidden < 1)
    refuse(fmt::format("widths {} and {} must be positive", in_dim, hidden), "correct model.head_hidden");
  if (bottleneck < 1)
    refuse(fmt::format("model.head_bottleneck is {}", bottleneck), "choose 1 or more, usually 256");
  if (out_dim < 2)
    refuse(fmt::format("model.prototypes is {}", out_dim),
           "choose 2 or more: one prototype alone tells nothing apart");
}

DinoHead::DinoHead(const DinoHeadOptions& options, ParameterSet& parameters, const std::string& prefix,
                   Communicator& tensor, SumOverRanks sum)
    : options_(options), tensor_(tensor), sum_(std::move(sum)) {
  options.validate();
  require_tensor_degree(tensor.size(), options.out_dim, "prototypes", "projection head");
  add_layers(parameters, prefix);
  const Partition rows{.axis = 0, .blocks = 1, .part = tensor.rank(), .parts = tensor.size()};
  magnitude_ = &parameters.add({.name = prefix + "last_layer.weight_g",
                                .shape = {options.out_dim, 1},
                                .initial = {.law = Initializer::Law::constant, .value = 1},
                                .partition = rows,
                                .decays = true});
  direction_ = &parameters.add({.name = prefix + "last_layer.weight_v",
                                .shape = {options.out_dim, options.bottleneck},
                                .initial = {.law = Initializer::Law::uniform,
                                            .value = 1 / std::sqrt(static_cast<double>(options.bottleneck))},
                                .partition = rows,
                                .decays = true});
  freeze_last_layer(false);
}

void DinoHead::add_layers(ParameterSet& parameters, const std::string& prefix) {
  // Official names count the modules of a sequence: linear, [norm,] GELU, linear, …; a single linear is no
  // sequence.
  const int stride = options_.batch_norm ? 3 : 2;
  for (int i = 0; i < options_.layers; ++i) {
    const bool last = i + 1 == options_.layers;
    const std::int64_t in = i == 0 ? options_.in_dim : options_.hidden;
    const std::int64_t out = last ? options_.bottleneck : options_.hidden;
    const std::string name =
        options_.layers == 1 ? prefix + "mlp" : fmt::format("{}mlp.{}", prefix, i * stride);
    Layer layer;
    layer.weight = &parameters.add({.name = name + ".weight",
                                    .shape = {out, in},
                                    .initial = linear_weight_law(options_.init_std, in, out),
                                    .decays = true});
    layer.bias = &parameters.add({.name = name + ".bias", .shape = {out}, .decays = false});
    if (options_.batch_norm && !last) {
      layer.norm_name = fmt::format("{}mlp.{}", prefix, i * stride + 1);
      layer.norm = add_layer_norm(parameters, layer.norm_name, out);
    }
    layers_.push_back(std::move(layer));
  }
}

void DinoHead::build(Memory& memory) {
  for (Layer& layer : layers_) {
    if (layer.norm.gain == nullptr) continue;
    layer.statistics = {.running_mean = Tensor(memory, {options_.hidden}, DType::f32),
                        .running_variance = Tensor(memory, {options_.hidden}, DType::f32)};
    fill(layer.statistics.running_mean, 0);
    fill(layer.statistics.running_variance, 1);
  }
}

std::vector<DinoHead::Buffer> DinoHead::buffers() const {
  std::vector<Buffer> buffers;
  for (const Layer& layer : layers_) {
    if (layer.norm.gain == nullptr) continue;
    buffers.push_back({layer.norm_name + ".running_mean", layer.statistics.running_mean});
    buffers.push_back({layer.norm_name + ".running_var", layer.statistics.running_variance});
  }
  return buffers;
}

Var DinoHead::mlp(Tape& tape, const Var& features) {
  Var h = features;
  for (std::size_t i = 0; i + 1 < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    if (layer.norm.gain == nullptr) {
      h = linear_gelu(tape, h, *layer.weight, *layer.bias);
    } else {
      h = linear(tape, h, *layer.weight, layer.bias);
      h = gelu(tape, batch_norm(tape, h, *layer.norm.gain, *layer.norm.bias, layer.statistics, sum_));
    }
  }
  return linear(tape, h, *layers_.back().weight, layers_.back().bias);
}

DinoHead::Stages DinoHead::stages(Tape& tape, const Var& features) {
  Stages result;
  result.mlp = mlp(tape, features);
  result.normalized = l2_normalize(tape, result.mlp);
  result.weight = weight_norm(tape, *direction_, *magnitude_, features.dtype());
  result.logits = linear(tape, copy_to(tape, result.normalized, tensor_), result.weight);
  return result;
}

void DinoHead::freeze_last_layer(bool frozen) {
  direction_->set_trainable(!frozen);
  magnitude_->set_trainable(!frozen && !options_.norm_last_layer);
}

}  // namespace bireme
