#pragma once

#include <string>

#include "distributed/tensor_parallel.h"
#include "models/llama_options.h"

namespace bireme {

/// The gain of an rms_norm, 1 at first and not decayed.
Parameter& add_rms_norm(ParameterSet& parameters, const std::string& name, std::int64_t channels);

/// The weights of one block, and the parts of it that know nothing of sequences. Residual additions and norms
/// are the caller's, who fuses them. Over tensor ranks each holds whole heads and a share of the SwiGLU's
/// width, and either branch sums once over the ranks.
class LlamaBlock {
 public:
  LlamaBlock(ParameterSet& parameters, const std::string& prefix, const LlamaOptions& options,
             Communicator& tensor);

  Parameter& norm1() const { return norm1_; }
  Parameter& norm2() const { return norm2_; }

  /// q, k, v of this rank's heads, not yet rotated: [R, (H + 2·G)·d] of y [R, D].
  Var queries_keys_values(Tape& tape, const Var& y) const { return qkv_.forward(tape, y); }
  /// The output projection: [R, D] of [R, H·d].
  Var project(Tape& tape, const Var& heads) const { return output_.forward(tape, heads); }
  /// down(silu(gate(y)) ∘ up(y)): [R, D].
  Var mlp(Tape& tape, const Var& y) const;

 private:
  Parameter& norm1_;
  ColumnLinear qkv_;
  RowLinear output_;
  Parameter& norm2_;
  ColumnLinear gate_up_;
  RowLinear down_;
};

}  // namespace bireme
