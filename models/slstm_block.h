#pragma once

#include <string>

#include "models/xlstm_block.h"

namespace bireme {

/// The paper's block around an sLSTM, with a gated feed-forward part after it (Beck et al. 2024, figure 10):
///     u = silu(conv(LN(x))),   gates i and f from u, z and o from LN(x), by one matrix for each head,
///     x' = x + norm of each head(cell),   y = x' + W_down·(act(g) ∘ w),   [g, w] = W_up·LN(x')
/// Over tensor ranks the cell is computed by every rank, since its recurrence is short of work to share, and
/// the feed-forward part is split.
class SlstmBlock final : public XlstmBlock {
 public:
  SlstmBlock(ParameterSet& parameters, const std::string& prefix, const XlstmOptions& options, int index,
             Communicator& tensor);

  Var forward(Tape& tape, const Var& x, const XlstmPass& pass) const override;
  XlstmLayerState make_state(Memory& memory, std::int64_t sequences, DType type) const override;
  double flops_per_token() const override;

 private:
  Var cell(Tape& tape, const Var& n, const XlstmPass& pass) const;
  Var feed_forward(Tape& tape, const Var& n) const;

  Communicator& tensor_;
  std::int64_t channels_, heads_;
  SlstmFunction function_;
  Activation activation_;
  Parameter* norm_;
  Parameter *convolution_ = nullptr, *convolution_bias_ = nullptr;
  Parameter *input_, *forget_, *z_, *output_;  // [H, D, D] of a head's width D
  Parameter *recurrent_, *bias_;
  Parameter *cell_norm_, *ffn_norm_, *up_, *down_;
};

}  // namespace bireme
