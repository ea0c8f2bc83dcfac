#include "models/xlstm_large_block.h"

#include "core/ops/linear/linear.h"
#include "core/ops/norm/norm.h"
#include "core/ops/pointwise/pointwise.h"
#include "distributed/collective_ops.h"
#include "distributed/tensor_parallel.h"

namespace bireme {

XlstmLargeBlock::XlstmLargeBlock(ParameterSet& parameters, const std::string& prefix,
                                 const XlstmOptions& options, Communicator& tensor)
    : tensor_(tensor),
      heads_(options.heads / tensor.size()),
      norm_epsilon_(static_cast<float>(options.norm_epsilon)),
      cap_(options.gate_soft_cap) {
  const std::int64_t channels = options.channels, keys = options.keys(), values = options.values(),
                     hidden = options.large_hidden(), heads = options.heads;
  require_tensor_degree(tensor.size(), heads, "heads", "xlstm");
  require_tensor_degree(tensor.size(), hidden, "hidden channels", "xlstm");
  const Partition whole{};
  const auto split = [&](int axis, int blocks) {
    return Partition{.axis = axis, .blocks = blocks, .part = tensor.rank(), .parts = tensor.size()};
  };
  const Initializer small = small_law(channels), one{.law = Initializer::Law::constant, .value = 1}, zero{};
  const auto add = [&](const std::string& name, const Shape& shape, const Initializer& law,
                       const Partition& partition, bool decays) {
    return &parameters.add(
        {.name = prefix + name, .shape = shape, .initial = law, .partition = partition, .decays = decays});
  };
  const Partition rows = split(0, 1);
  norm_ = add("norm_mlstm.weight", {channels}, one, whole, false);
  q_ = add("mlstm_layer.q.weight", {keys, channels}, small, rows, true);
  if (options.memory != XlstmMemory::learned) {
    k_ = add("mlstm_layer.k.weight", {keys, channels}, small, rows, true);
    v_ = add("mlstm_layer.v.weight", {values, channels}, small, rows, true);
    input_gate_ = add("mlstm_layer.igate_preact.weight", {heads, channels}, zero, rows, true);
    input_bias_ = add("mlstm_layer.igate_preact.bias", {heads},
                      {.law = Initializer::Law::constant, .value = options.input_gate_bias}, rows, false);
    forget_gate_ = add("mlstm_layer.fgate_preact.weight", {heads, channels}, zero, rows, true);
    forget_bias_ = add("mlstm_layer.fgate_preact.bias", {heads}, ramp_law(3, 6, heads), rows, false);
  }
  memory_ =
      std::make_unique<MlstmMemory>(parameters, prefix + "mlstm_layer.",
                                    MlstmMemory::Options{.kind = options.memory,
                                                         .heads = options.heads,
                                                         .keys = keys / heads,
                                                         .values = values / heads,
                                                         .chunk = options.chunk,
                                                         .epsilon = static_cast<float>(options.cell_epsilon)},
                                    tensor);
  output_gate_ = add("mlstm_layer.ogate_preact.weight", {values, channels}, small, rows, true);
  cell_norm_ = add("mlstm_layer.multihead_norm.weight", {values}, one, rows, false);
  out_ = add("mlstm_layer.out_proj.weight", {channels, values}, wang_law(channels, options.layers),
             split(1, 1), true);
  ffn_norm_ = add("norm_ffn.weight", {channels}, one, whole, false);
  up_ = add("ffn.proj_up_gate_z.weight", {2 * hidden, channels}, small, split(0, 2), true);
  down_ =
      add("ffn.proj_down.weight", {channels, hidden}, wang_law(hidden, options.layers), split(1, 1), true);
}

Var XlstmLargeBlock::mix(Tape& tape, const Var& n, const XlstmPass& pass) const {
  const Var x = copy_to(tape, n, tensor_);
  const Var q = linear(tape, x, *q_, nullptr);
  Var h;
  if (memory_->is_learned()) {
    h = memory_->read(tape, q, {}, {}, {}, pass);
  } else {
    const Var k = linear(tape, x, *k_, nullptr), v = linear(tape, x, *v_, nullptr);
    const Var gates = cap_gates(tape, gate_products(tape, {x}, *input_gate_, *forget_gate_), *input_bias_,
                                *forget_bias_, 0, cap_);
    h = memory_->read(tape, q, k, v, gates, pass);
  }
  const Var normed = group_norm(tape, h, heads_, *cell_norm_, 0, norm_epsilon_, pass.type);
  const Var gated = sigmoid_gate(tape, linear(tape, x, *output_gate_, nullptr), normed);
  return reduce_from(tape, linear(tape, gated, *out_, nullptr), tensor_);
}

Var XlstmLargeBlock::feed_forward(Tape& tape, const Var& n) const {
  const Var up = linear(tape, copy_to(tape, n, tensor_), *up_, nullptr);
  return reduce_from(tape, linear(tape, silu_gate(tape, up), *down_, nullptr), tensor_);
}

Var XlstmLargeBlock::forward(Tape& tape, const Var& x, const XlstmPass& pass) const {
  const Var mixed = mix(tape, rms_norm(tape, x, *norm_, norm_epsilon_, pass.type), pass);
  const ResidualNorm sum = residual_rms_norm(tape, x, mixed, *ffn_norm_, norm_epsilon_, pass.type);
  return residual_add(tape, sum.x, feed_forward(tape, sum.y));
}

XlstmLayerState XlstmLargeBlock::make_state(Memory& memory, std::int64_t sequences, DType type) const {
  return {.mlstm = memory_->make_state(memory, sequences, type), .slstm = {}, .convolution = {}};
}

double XlstmLargeBlock::flops_per_token() const {
  const auto elements = [](const Parameter* parameter) {
    return parameter == nullptr ? 0 : static_cast<double>(parameter->whole_shape().elements());
  };
  double weights = 0;
  for (const Parameter* weight : {q_, k_, v_, input_gate_, forget_gate_, output_gate_, out_, up_, down_})
    weights += elements(weight);
  return 2 * weights + memory_->flops_per_token();
}

}  // namespace bireme
