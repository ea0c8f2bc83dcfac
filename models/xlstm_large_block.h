#pragma once

#include <memory>
#include <string>

#include "models/mlstm_memory.h"
#include "models/xlstm_block.h"

namespace bireme {

/// A block of the large xLSTM (Beck et al. 2025):
///     n = norm(x),   x' = x + W_out·(σ(W_o·n) ∘ norm of each head(cell(q, k, v, gates of n))),
///     y = x' + W_down·(silu(W_g·n') ∘ W_u·n'),   n' = norm(x')
/// with root-mean-square norms and gates capped softly. Over tensor ranks each holds whole heads and a share
/// of the feed-forward part: two sums over ranks a block.
class XlstmLargeBlock final : public XlstmBlock {
 public:
  XlstmLargeBlock(ParameterSet& parameters, const std::string& prefix, const XlstmOptions& options,
                  Communicator& tensor);

  Var forward(Tape& tape, const Var& x, const XlstmPass& pass) const override;
  XlstmLayerState make_state(Memory& memory, std::int64_t sequences, DType type) const override;
  double flops_per_token() const override;

 private:
  Var mix(Tape& tape, const Var& n, const XlstmPass& pass) const;
  Var feed_forward(Tape& tape, const Var& n) const;

  Communicator& tensor_;
  std::int64_t heads_;  // of this rank
  float norm_epsilon_;
  double cap_;
  Parameter *norm_, *q_;
  Parameter *k_ = nullptr, *v_ = nullptr;
  Parameter *input_gate_ = nullptr, *input_bias_ = nullptr, *forget_gate_ = nullptr, *forget_bias_ = nullptr;
  std::unique_ptr<MlstmMemory> memory_;
  Parameter *cell_norm_, *output_gate_, *out_;
  Parameter *ffn_norm_, *up_, *down_;  // up_: gate, then up
};

}  // namespace bireme
