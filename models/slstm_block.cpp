#include "models/slstm_block.h"

#include <cmath>

#include "core/ops/convolution/convolution.h"
#include "core/ops/lane_type.h"
#include "core/ops/linear/linear.h"
#include "core/ops/norm/norm.h"
#include "core/ops/pointwise/pointwise.h"
#include "distributed/collective_ops.h"
#include "distributed/tensor_parallel.h"

namespace bireme {

namespace {

/// Bias of the forget gate of unit j of a head: from block to block more units forget fast.
double forget_bias(SlstmBiasLaw law, std::int64_t unit, std::int64_t units, int index, int layers) {
  if (units == 1) return law == SlstmBiasLaw::small_init ? 3 : 5;
  const double place = static_cast<double>(unit) / static_cast<double>(units - 1);
  if (law == SlstmBiasLaw::small_init) return 3 + 3 * place;
  const double depth = layers > 1 ? static_cast<double>(index) / (layers - 1) : 0;
  return 5 - 12 * std::pow(place, 0.3 + 1.3 * depth);
}

/// [4·H·D]: gate, head, unit; only the forget gate's differ from 0.
Initializer bias_law(const XlstmOptions& options, int index) {
  if (options.slstm_bias == SlstmBiasLaw::standard)
    return {.law = Initializer::Law::uniform, .value = 1 / std::sqrt(static_cast<double>(options.channels))};
  Initializer law{.law = Initializer::Law::given, .value = 0, .values = {}};
  const std::int64_t units = options.channels / options.heads_of_slstm();
  for (int gate = 0; gate < 4; ++gate)
    for (std::int64_t i = 0; i < options.channels; ++i)
      law.values.push_back(
          gate == 1 ? forget_bias(options.slstm_bias, i % units, units, index, options.layers) : 0);
  return law;
}

}  // namespace

SlstmBlock::SlstmBlock(ParameterSet& parameters, const std::string& prefix, const XlstmOptions& options,
                       int index, Communicator& tensor)
    : tensor_(tensor),
      splits_heads_(options.heads_of_slstm() % tensor.size() == 0),
      channels_(options.channels),
      inner_(splits_heads_ ? channels_ / tensor.size() : channels_),
      heads_(splits_heads_ ? options.heads_of_slstm() / tensor.size() : options.heads_of_slstm()),
      function_(options.function),
      activation_(options.activation) {
  const std::int64_t hidden = options.slstm_hidden(), heads = options.heads_of_slstm(),
                     units = channels_ / heads;
  require_tensor_degree(tensor.size(), hidden, "hidden channels", "xlstm");
  const Initializer small = small_law(channels_), zero{};
  const auto add = [&](const std::string& name, const Shape& shape, const Initializer& law, bool decays,
                       const Partition& partition = {}) {
    return &parameters.add(
        {.name = prefix + name, .shape = shape, .initial = law, .partition = partition, .decays = decays});
  };
  const auto of_heads = [&](int blocks) {
    return splits_heads_
               ? Partition{.axis = 0, .blocks = blocks, .part = tensor.rank(), .parts = tensor.size()}
               : Partition{};
  };
  norm_ = add("xlstm_norm.weight", {channels_}, zero, false);
  if (options.slstm_convolution > 0) {
    const Initializer taps{.law = Initializer::Law::uniform,
                           .value = 1 / std::sqrt(static_cast<double>(options.slstm_convolution))};
    convolution_ =
        add("xlstm.conv1d.conv.weight", {channels_, 1, options.slstm_convolution}, taps, true, of_heads(1));
    convolution_bias_ = add("xlstm.conv1d.conv.bias", {channels_}, taps, false, of_heads(1));
  }
  const Shape gate{heads, units, units};
  // The published names of these two are each other's; kept so that folders agree.
  input_ = add("xlstm.fgate.weight", gate, small, true, of_heads(1));
  forget_ = add("xlstm.igate.weight", gate, small, true, of_heads(1));
  z_ = add("xlstm.zgate.weight", gate, small, true, of_heads(1));
  output_ = add("xlstm.ogate.weight", gate, small, true, of_heads(1));
  const Initializer uniform{.law = Initializer::Law::uniform,
                            .value = 1 / std::sqrt(static_cast<double>(channels_))};
  recurrent_ = add("xlstm.slstm_cell._recurrent_kernel_", {heads, 4 * units, units},
                   options.slstm_random_recurrent ? uniform : zero, false, of_heads(1));
  bias_ = add("xlstm.slstm_cell._bias_", {4 * channels_}, bias_law(options, index), false, of_heads(4));
  cell_norm_ = add("xlstm.group_norm.weight", {channels_}, zero, false, of_heads(1));
  ffn_norm_ = add("ffn_norm.weight", {channels_}, zero, false);
  up_ = add("ffn.proj_up.weight", {2 * hidden, channels_}, small, true,
            {.axis = 0, .blocks = 2, .part = tensor.rank(), .parts = tensor.size()});
  down_ = add("ffn.proj_down.weight", {channels_, hidden}, wang_law(channels_, options.layers), true,
              {.axis = 1, .part = tensor.rank(), .parts = tensor.size()});
}

Var SlstmBlock::cell(Tape& tape, const Var& whole, const XlstmPass& pass) const {
  const Var n = splits_heads_ ? own_channels(tape, whole, tensor_) : whole;
  Var u = n;
  if (convolution_ != nullptr) {
    const Tensor before = pass.state != nullptr ? pass.state->convolution : Tensor();
    u = pass.documents.empty()
            ? causal_convolution(tape, n, *convolution_, *convolution_bias_, before, pass.starts,
                                 pass.sequences, true)
            : causal_convolution(tape, n, *convolution_, *convolution_bias_, pass.documents, true);
    if (before)
      pass.state->convolution =
          convolution_memory(tape.backend().memory(), n.value(), before, pass.sequences);
  }
  const DType lane = lane_type(pass.type);
  const Var gates = block_linear(tape, {{u, input_}, {u, forget_}, {n, z_}, {n, output_}}, lane);
  const SlstmOptions options{.sequences = pass.sequences, .heads = heads_, .function = function_};
  Var cells;
  if (pass.documents.empty()) {
    const SlstmResult result =
        slstm(tape, gates, *recurrent_, *bias_, pass.state != nullptr ? &pass.state->slstm : nullptr,
              pass.starts, options, pass.type);
    if (pass.state != nullptr) pass.state->slstm = result.state;
    cells = result.h;
  } else {
    cells = slstm_of_documents(tape, gates, *recurrent_, *bias_, pass.documents, options, pass.type);
  }
  const Var h = group_norm(tape, cells, heads_, *cell_norm_, kXlstmNormFromOne, kXlstmNormEpsilon, pass.type);
  return splits_heads_ ? gather_channels(tape, h, tensor_) : h;
}

Var SlstmBlock::feed_forward(Tape& tape, const Var& n) const {
  const Var up = linear(tape, copy_to(tape, n, tensor_), *up_, nullptr);
  return reduce_from(tape, linear(tape, activation_gate(tape, up, activation_), *down_, nullptr), tensor_);
}

Var SlstmBlock::forward(Tape& tape, const Var& x, const XlstmPass& pass) const {
  const Var n = group_norm(tape, x, 1, *norm_, kXlstmNormFromOne, kXlstmNormEpsilon, pass.type);
  const Var stream = residual_add(tape, x, cell(tape, n, pass));
  const Var next = group_norm(tape, stream, 1, *ffn_norm_, kXlstmNormFromOne, kXlstmNormEpsilon, pass.type);
  return residual_add(tape, stream, feed_forward(tape, next));
}

XlstmLayerState SlstmBlock::make_state(Memory& memory, std::int64_t sequences, DType type) const {
  XlstmLayerState state{
      .mlstm = {}, .slstm = empty_slstm_state(memory, sequences, inner_, lane_type(type)), .convolution = {}};
  if (convolution_ != nullptr && convolution_->value().channels() > 1) {
    state.convolution = Tensor(memory, {sequences, convolution_->value().channels() - 1, inner_}, type);
    fill(state.convolution, 0);
  }
  return state;
}

double SlstmBlock::flops_per_token() const {
  const std::int64_t head_units = inner_ / heads_;
  const auto channels = static_cast<double>(channels_), units = static_cast<double>(head_units);
  const auto hidden = static_cast<double>(down_->whole_shape().back());
  return 16 * channels * units + 6 * channels * hidden;
}

}  // namespace bireme
