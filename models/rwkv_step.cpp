#include "models/rwkv_step.h"

#include "core/ops/lane_type.h"
#include "core/ops/linear/linear_kernels.h"
#include "core/ops/norm/norm_kernels.h"
#include "core/ops/pointwise/pointwise_kernels.h"
#include "core/ops/token_shift/token_shift_kernels.h"
#include "core/ops/wkv/wkv_kernels.h"

namespace bireme {

RwkvStep::RwkvStep(const Backend& backend, std::int64_t sequences, const RwkvOptions& options, DType type)
    : backend_(backend), sequences_{.count = sequences, .length = 1}, type_(type) {
  const DType wide = lane_type(type);
  const auto rows = [&](std::int64_t channels) {
    return Tensor(backend.memory(), {sequences, channels}, type);
  };
  const std::int64_t d = options.channels, a = options.inner();
  x_ = Tensor(backend.memory(), {sequences, d}, wide);
  mean_ = Tensor(backend.memory(), {sequences}, wide);
  reciprocal_ = Tensor(backend.memory(), {sequences}, wide);
  y_ = rows(d), branch_ = rows(d), gate_ = rows(d), value_ = rows(d);
  r_ = rows(a), k_ = rows(a), v_ = rows(a), gated_ = rows(a);
  hidden_ = rows(options.ffn());
  mixed_ = {rows(d), rows(d), rows(d)};
  two_mixed_ = {mixed_[0], mixed_[1]};
}

void RwkvStep::product(const Tensor& x, const Parameter& weight, const Tensor& y) const {
  backend_.linear().linear({.x = x, .weight = weight.as(type_), .bias = no_bias_, .y = y});
}

void RwkvStep::begin(const Tensor& x, const Norm& norm) {
  copy(x, x_);
  backend_.norm().layer_norm(LayerNormForward{.x = x_,
                                              .gain = norm.parameters.gain->value(),
                                              .bias = norm.parameters.bias->value(),
                                              .y = y_,
                                              .mean = mean_,
                                              .reciprocal = reciprocal_,
                                              .epsilon = norm.epsilon});
}

void RwkvStep::add_and_norm(const Norm& norm) {
  backend_.norm().residual_layer_norm(ResidualNormForward{.x = x_,
                                                          .branch = branch_,
                                                          .scale = no_scale_,
                                                          .gain = norm.parameters.gain->value(),
                                                          .bias = norm.parameters.bias->value(),
                                                          .x_sum = x_,
                                                          .y = y_,
                                                          .mean = mean_,
                                                          .reciprocal = reciprocal_,
                                                          .epsilon = norm.epsilon});
}

void RwkvStep::time_mix(const RwkvBlock::TimeMix& p, RwkvLayerState& state) {
  const std::vector<Tensor> rates{p.mix_k->value(), p.mix_v->value(), p.mix_r->value()};
  backend_.token_shift().token_shift(TokenShiftForward{
      .sequences = sequences_, .x = y_, .mu = rates, .carried = state.time_x, .mixed = mixed_});
  product(mixed_[0], *p.key, k_);
  product(mixed_[1], *p.value, v_);
  product(mixed_[2], *p.receptance, r_);
  backend_.wkv().wkv(WkvForward{.sequences = sequences_,
                                .r = r_,
                                .k = k_,
                                .v = v_,
                                .time_decay = p.decay->value(),
                                .time_first = p.first->value(),
                                .initial = state.wkv,
                                .y = gated_,
                                .states = no_states_,
                                .last = state.wkv});
  product(gated_, *p.output, branch_);
}

void RwkvStep::channel_mix(const RwkvBlock::ChannelMix& p, RwkvLayerState& state) {
  const std::vector<Tensor> rates{p.mix_k->value(), p.mix_r->value()};
  backend_.token_shift().token_shift(TokenShiftForward{
      .sequences = sequences_, .x = y_, .mu = rates, .carried = state.channel_x, .mixed = two_mixed_});
  backend_.linear().linear_squared_relu(
      LinearSquaredReluForward{.x = mixed_[0], .weight = p.key->as(type_), .y = hidden_});
  product(mixed_[1], *p.receptance, gate_);
  product(hidden_, *p.value, value_);
  backend_.pointwise().sigmoid_gate(SigmoidGateForward{.r = gate_, .x = value_, .y = branch_});
}

void RwkvStep::block(const RwkvBlock& block, RwkvLayerState& state, const Norm& between, const Norm& next) {
  time_mix(block.time(), state);
  add_and_norm(between);
  channel_mix(block.channel(), state);
  add_and_norm(next);
}

}  // namespace bireme
