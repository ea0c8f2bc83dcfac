#include "models/mlstm_block.h"

#include <cmath>

#include "core/ops/convolution/convolution.h"
#include "core/ops/linear/linear.h"
#include "core/ops/norm/norm.h"
#include "core/ops/pointwise/pointwise.h"
#include "distributed/collective_ops.h"
#include "distributed/tensor_parallel.h"

namespace bireme {

MlstmBlock::MlstmBlock(ParameterSet& parameters, const std::string& prefix, const XlstmOptions& options,
                       Communicator& tensor)
    : tensor_(tensor),
      inner_(options.inner() / tensor.size()),
      heads_(options.heads / tensor.size()),
      channels_(options.channels) {
  require_tensor_degree(tensor.size(), options.heads, "heads", "xlstm");
  const std::int64_t inner = options.inner(), heads = options.heads, block = options.projection_block;
  require_tensor_degree(tensor.size(), inner / block, "blocks of channels", "xlstm");
  const Partition split{.axis = 0, .part = tensor.rank(), .parts = tensor.size()};
  const auto split_by = [&](int axis, int blocks) {
    return Partition{.axis = axis, .blocks = blocks, .part = tensor.rank(), .parts = tensor.size()};
  };
  const Initializer small = small_law(options.channels), zero{};
  const auto add = [&](const std::string& name, const Shape& shape, const Initializer& law,
                       const Partition& partition, bool decays) {
    return &parameters.add(
        {.name = prefix + name, .shape = shape, .initial = law, .partition = partition, .decays = decays});
  };
  const Initializer taps{.law = Initializer::Law::uniform,
                         .value = 1 / std::sqrt(static_cast<double>(options.convolution))};
  const bool learned = options.memory == XlstmMemory::learned;
  norm_ = add("xlstm_norm.weight", {channels_}, zero, {}, false);
  up_ = add("xlstm.proj_up.weight", {2 * inner, channels_}, small, split_by(0, 2), true);
  convolution_ = add("xlstm.conv1d.conv.weight", {inner, 1, options.convolution}, taps, split, true);
  convolution_bias_ = add("xlstm.conv1d.conv.bias", {inner}, taps, split, false);
  const Shape blocks{inner / block, block, block};
  q_ = add("xlstm.q_proj.weight", blocks, small, split, true);
  if (!learned) {
    k_ = add("xlstm.k_proj.weight", blocks, small, split, true);
    v_ = add("xlstm.v_proj.weight", blocks, small, split, true);
    input_gate_ = add("xlstm.mlstm_cell.igate.weight", {heads, 3 * inner}, zero, split_by(1, 3), true);
    input_bias_ = add("xlstm.mlstm_cell.igate.bias", {heads}, {.law = Initializer::Law::normal, .value = 0.1},
                      split, false);
    forget_gate_ = add("xlstm.mlstm_cell.fgate.weight", {heads, 3 * inner}, zero, split_by(1, 3), true);
    forget_bias_ = add("xlstm.mlstm_cell.fgate.bias", {heads}, ramp_law(3, 6, heads), split, false);
  }
  memory_ =
      std::make_unique<MlstmMemory>(parameters, prefix + "xlstm.mlstm_cell.",
                                    MlstmMemory::Options{.kind = options.memory,
                                                         .heads = options.heads,
                                                         .keys = inner / heads,
                                                         .values = inner / heads,
                                                         .chunk = options.chunk,
                                                         .epsilon = static_cast<float>(options.cell_epsilon)},
                                    tensor);
  cell_norm_ = add("xlstm.mlstm_cell.outnorm.weight", {inner}, zero, split, false);
  skip_ = add("xlstm.learnable_skip", {inner}, {.law = Initializer::Law::constant, .value = 1}, split, false);
  down_ = add("xlstm.proj_down.weight", {channels_, inner}, wang_law(channels_, options.layers),
              split_by(1, 1), true);
}

/// ĩ and f̃ of this rank's heads, which read q, k and v of all.
Var MlstmBlock::gates(Tape& tape, const std::vector<Var>& qkv) const {
  Var products = gate_products(tape, qkv, *input_gate_, *forget_gate_);
  if (tensor_.size() > 1) products = copy_to(tape, reduce_from(tape, products, tensor_), tensor_);
  return cap_gates(tape, products, *input_bias_, *forget_bias_, tensor_.rank() * heads_, 0);
}

Var MlstmBlock::forward(Tape& tape, const Var& x, const XlstmPass& pass) const {
  const Var n = group_norm(tape, x, 1, *norm_, kXlstmNormFromOne, kXlstmNormEpsilon, pass.type);
  const std::vector<Var> halves =
      linear_blocks(tape, copy_to(tape, n, tensor_), *up_, nullptr, {inner_, inner_});
  const Var &inner = halves[0], &z = halves[1];
  const bool has_memory = pass.state != nullptr && pass.state->convolution;
  const Tensor before = has_memory ? pass.state->convolution : Tensor();
  const Var u = pass.documents.empty() ? causal_convolution(tape, inner, *convolution_, *convolution_bias_,
                                                            before, pass.starts, pass.sequences, true)
                                       : causal_convolution(tape, inner, *convolution_, *convolution_bias_,
                                                            pass.documents, true);
  if (has_memory)
    pass.state->convolution =
        convolution_memory(tape.backend().memory(), inner.value(), before, pass.sequences);
  const Var q = block_linear(tape, {{u, q_}}, pass.type);
  Var h;
  if (memory_->is_learned()) {
    h = memory_->read(tape, q, {}, {}, {}, pass);
  } else {
    const Var k = block_linear(tape, {{u, k_}}, pass.type), v = block_linear(tape, {{inner, v_}}, pass.type);
    h = memory_->read(tape, q, k, v, gates(tape, {q, k, v}), pass);
  }
  const Var normed =
      group_norm(tape, h, heads_, *cell_norm_, kXlstmNormFromOne, kXlstmNormEpsilon, pass.type);
  const Var y = linear(tape, skip_gate(tape, normed, u, *skip_, z), *down_, nullptr);
  return residual_add(tape, x, reduce_from(tape, y, tensor_));
}

XlstmLayerState MlstmBlock::make_state(Memory& memory, std::int64_t sequences, DType type) const {
  XlstmLayerState state{
      .mlstm = memory_->make_state(memory, sequences, type), .slstm = {}, .convolution = {}};
  const std::int64_t taps = convolution_->value().channels();
  if (taps > 1) {
    state.convolution = Tensor(memory, {sequences, taps - 1, inner_}, type);
    fill(state.convolution, 0);
  }
  return state;
}

double MlstmBlock::flops_per_token() const {
  const auto inner = static_cast<double>(inner_ * tensor_.size()), channels = static_cast<double>(channels_);
  const double block = static_cast<double>(q_->value().channels());
  const double heads = memory_->is_learned() ? 0 : static_cast<double>(input_gate_->value().rows());
  return 6 * inner * channels + (memory_->is_learned() ? 2 : 6) * inner * block + 12 * heads * inner +
         memory_->flops_per_token();
}

}  // namespace bireme
