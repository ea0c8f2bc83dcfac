#pragma once

#include <string>

#include "models/xlstm_block.h"

namespace bireme {

/// The paper's block around an sLSTM, with a gated feed-forward part after it (Beck et al. 2024, figure 10):
///     u = silu(conv(LN(x))),   gates i and f from u, z and o from LN(x), by one matrix for each head,
///     x' = x + norm of each head(cell),   y = x' + W_down·(act(g) ∘ w),   [g, w] = W_up·LN(x')
/// Over tensor ranks heads of the cell and the feed-forward part are split; where the ranks do not divide the
/// heads, every rank computes all of the cell.
class SlstmBlock final : public XlstmBlock {
 public:
  SlstmBlock(ParameterSet& parameters, const std::string& prefix, const XlstmOptions& options, int index,
             Communicator& tensor);

  Var forward(Tape& tape, const Var& x, const XlstmPass& pass) const override;
  XlstmLayerState make_state(Memory& memory, std::int64_t sequences, DType type) const override;
  double flops_per_token() const override;

 private:
  Var cell(Tape& tape, const Var& whole, const XlstmPass& pass) const;
  Var feed_forward(Tape& tape, const Var& n) const;

  Communicator& tensor_;
  bool splits_heads_;
  std::int64_t channels_;       // of the stream
  std::int64_t inner_, heads_;  // of this rank's part of the cell
  SlstmFunction function_;
  Activation activation_;
  Parameter* norm_;
  Parameter *convolution_ = nullptr, *convolution_bias_ = nullptr;
  Parameter *input_, *forget_, *z_, *output_;  // [H, D, D] of a head's width D
  Parameter *recurrent_, *bias_;
  Parameter *cell_norm_, *ffn_norm_, *up_, *down_;
};

}  // namespace bireme
