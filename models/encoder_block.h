#pragma once

#include <string>
#include <vector>

#include "core/ops/attention/attention.h"
#include "core/ops/norm/norm.h"
#include "distributed/tensor_parallel.h"

namespace bireme {

/// Gain (1) and bias (0) of a layer norm, registered as PREFIX.weight and PREFIX.bias.
struct LayerNormParameters {
  Parameter* gain = nullptr;
  Parameter* bias = nullptr;
};
LayerNormParameters add_layer_norm(ParameterSet& parameters, const std::string& prefix,
                                   std::int64_t channels);

/// The law of a linear layer's weight: normal with this deviation, or Xavier-uniform over the whole weight
/// for 0 (half width √(6 / (in + out)), Glorot and Bengio 2010), which narrow networks need to start at all.
Initializer linear_weight_law(double init_std, std::int64_t in, std::int64_t out);

struct EncoderBlockOptions {
  std::int64_t channels = 0;  ///< C
  std::int64_t hidden = 0;    ///< width of the MLP
  int heads = 0;
  double init_std = 0.02;
};

/// The two branches of a pre-norm transformer block (Dosovitskiy et al. 2021, eq. 2 and 3). Residual
/// additions and norms are the caller's, who fuses them across branches and blocks. Over tensor ranks each
/// holds whole heads and a share of the MLP's hidden channels, and every branch sums once over the ranks.
class EncoderBlock {
 public:
  EncoderBlock(ParameterSet& parameters, const std::string& prefix, const EncoderBlockOptions& options,
               Communicator& tensor);

  const LayerNormParameters& norm1() const { return norm1_; }
  const LayerNormParameters& norm2() const { return norm2_; }
  /// Heads held by this rank.
  int local_heads() const { return local_heads_; }

  /// q, k, v of this rank's heads: [R, 3·C/t] of y [R, C].
  Var queries_keys_values(Tape& tape, const Var& y) const { return qkv_.forward(tape, y); }
  /// Concatenated heads before the output projection: [R, C/t].
  Var attend(Tape& tape, const Var& y, const Segments& segments) const;
  /// The output projection: [R, C] of [R, C/t].
  Var project(Tape& tape, const Var& heads) const { return proj_.forward(tape, heads); }
  /// fc2(GELU(fc1(y))): [R, C].
  Var mlp(Tape& tape, const Var& y) const { return fc2_.forward(tape, fc1_.forward_gelu(tape, y)); }

 private:
  LayerNormParameters norm1_;
  ColumnLinear qkv_;
  RowLinear proj_;
  LayerNormParameters norm2_;
  ColumnLinear fc1_;
  RowLinear fc2_;
  int local_heads_;
};

}  // namespace bireme
