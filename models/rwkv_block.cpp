#include "models/rwkv_block.h"

#include <cmath>

#include "core/ops/embedding/embedding.h"
#include "core/ops/lane_type.h"
#include "core/ops/linear/linear.h"
#include "core/ops/pointwise/pointwise.h"
#include "core/ops/token_shift/token_shift.h"
#include "distributed/collective_ops.h"
#include "distributed/tensor_parallel.h"

namespace bireme {

namespace {

/// Adds the parameters of one half of a block under the names of the published files.
class HalfBlock {
 public:
  HalfBlock(ParameterSet& parameters, std::string prefix, Communicator& tensor)
      : parameters_(parameters), prefix_(std::move(prefix)), tensor_(tensor) {}

  Parameter* add_vector(const std::string& name, std::vector<double> values, double rate, bool split) {
    const auto size = static_cast<std::int64_t>(values.size());
    ParameterOptions options;
    options.name = prefix_ + name;
    options.shape = {size};
    options.initial = {.law = Initializer::Law::given, .value = 0, .values = std::move(values)};
    if (split) options.partition = along(0);
    options.decays = false;
    options.learning_rate_scale = rate;
    return &parameters_.add(std::move(options));
  }
  enum class Start { zero, orthogonal };
  /// A weight [out, in] split along `axis`. Orthogonal ones keep the length of what they widen.
  Parameter* add_matrix(const std::string& name, std::int64_t out, std::int64_t in, int axis, Start start) {
    const double gain = out > in ? std::sqrt(static_cast<double>(out) / static_cast<double>(in)) : 1;
    Initializer initial;
    if (start == Start::orthogonal) initial = {.law = Initializer::Law::orthogonal, .value = gain};
    return &parameters_.add({.name = prefix_ + name + ".weight",
                             .shape = {out, in},
                             .initial = initial,
                             .partition = along(axis),
                             .decays = true});
  }

 private:
  Partition along(int axis) const {
    return {.axis = axis, .blocks = 1, .part = tensor_.rank(), .parts = tensor_.size()};
  }

  ParameterSet& parameters_;
  std::string prefix_;
  Communicator& tensor_;
};

}  // namespace

RwkvBlock::RwkvBlock(ParameterSet& parameters, const std::string& prefix, int layer,
                     const RwkvOptions& options, Communicator& tensor)
    : tensor_(tensor), norm1_(add_layer_norm(parameters, prefix + "ln1", options.channels)) {
  using Start = HalfBlock::Start;
  const std::int64_t d = options.channels, a = options.inner(), h = options.ffn();
  require_tensor_degree(tensor.size(), d, "channels", prefix);
  require_tensor_degree(tensor.size(), a, "channels of time mixing", prefix);
  require_tensor_degree(tensor.size(), h, "hidden channels", prefix);
  RwkvInitialValues initial = rwkv_initial_values(options, layer);
  HalfBlock att(parameters, prefix + "att.", tensor);
  time_.decay = att.add_vector("time_decay", std::move(initial.time_decay), options.time_decay_rate, true);
  time_.first = att.add_vector("time_first", std::move(initial.time_first), options.time_first_rate, true);
  time_.mix_k = att.add_vector("time_mix_k", std::move(initial.time_mix_k), options.time_mix_rate, false);
  time_.mix_v = att.add_vector("time_mix_v", std::move(initial.time_mix_v), options.time_mix_rate, false);
  time_.mix_r = att.add_vector("time_mix_r", std::move(initial.time_mix_r), options.time_mix_rate, false);
  // Zeros wherever the block is still the identity without them: the first steps move the outputs alone.
  time_.key = att.add_matrix("key", a, d, 0, Start::zero);
  time_.value = att.add_matrix("value", a, d, 0, Start::orthogonal);
  time_.receptance = att.add_matrix("receptance", a, d, 0, Start::zero);
  time_.output = att.add_matrix("output", d, a, 1, Start::zero);
  norm2_ = add_layer_norm(parameters, prefix + "ln2", d);
  HalfBlock ffn(parameters, prefix + "ffn.", tensor);
  channel_.mix_k =
      ffn.add_vector("time_mix_k", std::move(initial.channel_mix_k), options.time_mix_rate, false);
  channel_.mix_r =
      ffn.add_vector("time_mix_r", std::move(initial.channel_mix_r), options.time_mix_rate, false);
  channel_.key = ffn.add_matrix("key", h, d, 0, Start::orthogonal);
  channel_.receptance = ffn.add_matrix("receptance", d, d, 0, Start::zero);
  channel_.value = ffn.add_matrix("value", d, h, 1, Start::zero);
}

RwkvLayerState RwkvBlock::empty_state(Memory& memory, std::int64_t sequences, DType type) const {
  const std::int64_t d = channel_.mix_k->whole_shape().back(), a = time_.decay->value().elements();
  RwkvLayerState state{.time_x = Tensor(memory, {sequences, d}, type),
                       .channel_x = Tensor(memory, {sequences, d}, type),
                       .wkv = empty_wkv_state(memory, sequences, a, lane_type(type))};
  fill(state.time_x, 0);
  fill(state.channel_x, 0);
  return state;
}

Var RwkvBlock::time_mix(Tape& tape, const Var& y, const Sequences& sequences, RwkvLayerState* state) const {
  const auto shared = [&](Parameter* rate) { return copy_to(tape, *rate, tensor_); };
  const std::vector<Var> mixed = token_shift(tape, copy_to(tape, y, tensor_),
                                             {shared(time_.mix_k), shared(time_.mix_v), shared(time_.mix_r)},
                                             sequences, state != nullptr ? state->time_x : Tensor());
  const Var k = linear(tape, mixed[0], *time_.key, nullptr),
            v = linear(tape, mixed[1], *time_.value, nullptr),
            r = linear(tape, mixed[2], *time_.receptance, nullptr);
  WkvCarry initial;
  if (state != nullptr) initial = {.a = Var(state->wkv.a), .b = Var(state->wkv.b), .p = state->wkv.p};
  const WkvResult gated = wkv(tape, {.sequences = sequences,
                                     .r = r,
                                     .k = k,
                                     .v = v,
                                     .time_decay = *time_.decay,
                                     .time_first = *time_.first,
                                     .initial = initial,
                                     .wants_last = state != nullptr});
  if (state != nullptr)
    state->wkv = {.a = gated.last.a.value(), .b = gated.last.b.value(), .p = gated.last.p};
  return reduce_from(tape, linear(tape, gated.y, *time_.output, nullptr), tensor_);
}

Var RwkvBlock::channel_mix(Tape& tape, const Var& y, const Sequences& sequences, RwkvLayerState* state,
                           const Tensor& needed) const {
  const std::vector<Var> mixed =
      token_shift(tape, copy_to(tape, y, tensor_),
                  {copy_to(tape, *channel_.mix_k, tensor_), copy_to(tape, *channel_.mix_r, tensor_)},
                  sequences, state != nullptr ? state->channel_x : Tensor());
  // A row reads the one before it, but nothing further: behind that, rows are independent.
  const auto wanted = [&](const Var& all) { return needed ? gather_rows(tape, all, needed) : all; };
  const Var k = linear_squared_relu(tape, wanted(mixed[0]), *channel_.key);
  const Var r = linear(tape, wanted(mixed[1]), *channel_.receptance, nullptr);
  const Var value = scatter_channels_from(tape, linear(tape, k, *channel_.value, nullptr), tensor_);
  return gather_channels(tape, sigmoid_gate(tape, r, value), tensor_);
}

}  // namespace bireme
