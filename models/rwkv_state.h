#pragma once

#include <vector>

#include "models/language_model.h"
#include "models/rwkv_block.h"

namespace bireme {

class RwkvStep;

/// What RWKV carries from token to token: 2·D numbers in the compute type and 3·A in fp32 for each layer and
/// sequence, whatever has been read.
class RwkvState final : public DecodingState {
 public:
  RwkvState(std::vector<RwkvLayerState> layers, std::int64_t sequences, DType type);
  ~RwkvState() override;
  RwkvState(RwkvState&&) = delete;

  std::int64_t sequences() const override { return sequences_; }
  std::int64_t position() const override { return position_; }
  std::int64_t bytes() const override;
  std::unique_ptr<DecodingState> clone() const override;

  DType type() const { return type_; }
  std::vector<RwkvLayerState>& layers() { return layers_; }
  const std::vector<RwkvLayerState>& layers() const { return layers_; }
  void moved_on(std::int64_t tokens) { position_ += tokens; }

  /// What one-token steps work in, made by the first of them and kept.
  std::unique_ptr<RwkvStep>& step() { return step_; }

 private:
  std::vector<RwkvLayerState> layers_;
  std::int64_t sequences_ = 0, position_ = 0;
  DType type_ = DType::f32;
  std::unique_ptr<RwkvStep> step_;
};

}  // namespace bireme
