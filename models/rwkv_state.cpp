#include "models/rwkv_state.h"

#include "models/rwkv_step.h"

namespace bireme {

RwkvState::RwkvState(std::vector<RwkvLayerState> layers, std::int64_t sequences, DType type)
    : layers_(std::move(layers)), sequences_(sequences), type_(type) {}

RwkvState::~RwkvState() = default;

std::int64_t RwkvState::bytes() const {
  std::size_t total = 0;
  for (const RwkvLayerState& layer : layers_)
    for (const Tensor* tensor : {&layer.time_x, &layer.channel_x, &layer.wkv.a, &layer.wkv.b, &layer.wkv.p})
      total += tensor->bytes();
  return static_cast<std::int64_t>(total);
}

std::unique_ptr<DecodingState> RwkvState::clone() const {
  const auto copied = [](const Tensor& tensor) { return bireme::clone(tensor.memory(), tensor); };
  std::vector<RwkvLayerState> layers;
  layers.reserve(layers_.size());
  for (const RwkvLayerState& layer : layers_)
    layers.push_back({.time_x = copied(layer.time_x),
                      .channel_x = copied(layer.channel_x),
                      .wkv = {.a = copied(layer.wkv.a), .b = copied(layer.wkv.b), .p = copied(layer.wkv.p)}});
  auto state = std::make_unique<RwkvState>(std::move(layers), sequences_, type_);
  state->position_ = position_;
  return state;
}

}  // namespace bireme
