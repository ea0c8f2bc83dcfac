#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/mlstm_memory.h"
#include "models/xlstm_block.h"

namespace bireme {

/// The paper's block around an mLSTM, projected up before and down after (Beck et al. 2024, figure 11):
///     [x_m, z] = W_up·LN(x),   u = silu(conv(x_m)),   q, k from u and v from x_m by blocks of 4 channels,
///     y = x + W_down·((norm of each head(cell) + skip ∘ u) ∘ silu(z))
/// Over tensor ranks each holds whole heads; the gates' products are summed, and so is the block's result.
class MlstmBlock final : public XlstmBlock {
 public:
  MlstmBlock(ParameterSet& parameters, const std::string& prefix, const XlstmOptions& options,
             Communicator& tensor);

  Var forward(Tape& tape, const Var& x, const XlstmPass& pass) const override;
  XlstmLayerState make_state(Memory& memory, std::int64_t sequences, DType type) const override;
  double flops_per_token() const override;

 private:
  Var gates(Tape& tape, const std::vector<Var>& qkv) const;

  Communicator& tensor_;
  std::int64_t inner_, heads_, channels_;  // inner width and heads of this rank
  Parameter *norm_, *up_, *convolution_, *convolution_bias_, *q_;
  Parameter *k_ = nullptr, *v_ = nullptr;
  Parameter *input_gate_ = nullptr, *input_bias_ = nullptr, *forget_gate_ = nullptr, *forget_bias_ = nullptr;
  std::unique_ptr<MlstmMemory> memory_;
  Parameter *cell_norm_, *skip_, *down_;
};

}  // namespace bireme
