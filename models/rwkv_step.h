#pragma once

#include "core/ops/backend.h"
#include "models/rwkv_block.h"

namespace bireme {

/// Runs blocks over a single token of each sequence, the way of inference: the same kernels as the parallel
/// form, called without a tape in buffers that are kept from token to token. Decoding one sequence reads
/// every weight once per token, so all other work and memory must stay small beside that. For one tensor
/// rank.
class RwkvStep {
 public:
  RwkvStep(const Backend& backend, std::int64_t sequences, const RwkvOptions& options, DType type);

  struct Norm {
    const LayerNormParameters& parameters;
    float epsilon;
  };
  /// The first block's norm of the stream x [B, D] fp32 (fp64), which is kept and moved on in place.
  void begin(const Tensor& x, const Norm& norm);
  /// A block from its normed input on; `between` is its second norm, `next` the first of the following block,
  /// or the last.
  void block(const RwkvBlock& block, RwkvLayerState& state, const Norm& between, const Norm& next);
  /// What the last norm gave: [B, D]. Overwritten by the next token.
  const Tensor& result() const { return y_; }

 private:
  void time_mix(const RwkvBlock::TimeMix& p, RwkvLayerState& state);
  void channel_mix(const RwkvBlock::ChannelMix& p, RwkvLayerState& state);
  void add_and_norm(const Norm& norm);
  void product(const Tensor& x, const Parameter& weight, const Tensor& y) const;

  const Backend& backend_;
  Sequences sequences_;
  DType type_;
  Tensor x_, y_, branch_, gate_, mean_, reciprocal_;
  std::vector<Tensor> mixed_, two_mixed_;
  Tensor r_, k_, v_, gated_, hidden_, value_;
  Tensor no_states_, no_scale_, no_bias_;
};

}  // namespace bireme
