#pragma once

#include <memory>
#include <string>

#include "core/ops/mlstm/mlstm.h"
#include "core/ops/slstm/slstm.h"
#include "distributed/communicator.h"
#include "models/xlstm_options.h"

namespace bireme {

/// What a block carries from token to token in inference.
struct XlstmLayerState {
  MlstmState mlstm;    ///< of mLSTM blocks
  SlstmState slstm;    ///< of sLSTM blocks
  Tensor convolution;  ///< [B, K - 1, C], compute type: the last inputs of the convolution; undefined: none
};

/// How a block is to run over a batch.
struct XlstmPass {
  std::int64_t sequences = 1;  ///< B
  DType type = DType::f32;
  Tensor starts;                          ///< [B, T] u8, or undefined
  std::vector<Branching> documents = {};  ///< in place of sequences, where there are any
  XlstmLayerState* state = nullptr;       ///< in inference: where to go on, moved on
};

/// A residual block: [B·T, D] fp32 (fp64) to the same.
class XlstmBlock {
 public:
  virtual ~XlstmBlock() = default;
  virtual Var forward(Tape& tape, const Var& x, const XlstmPass& pass) const = 0;
  /// The state before the first token of B sequences.
  virtual XlstmLayerState make_state(Memory& memory, std::int64_t sequences, DType type) const = 0;
  /// Two per multiply-add, for one token, summed over tensor ranks.
  virtual double flops_per_token() const = 0;
};

/// Block number `index` of a network: registers its parameters under `prefix` and published names.
std::unique_ptr<XlstmBlock> make_xlstm_block(ParameterSet& parameters, const std::string& prefix,
                                             const XlstmOptions& options, int index, Communicator& tensor);

/// Of the norms in networks of the paper's variant, whose weights are stored as their distance from 1.
inline constexpr float kXlstmNormEpsilon = 1e-5f, kXlstmNormFromOne = 1;

/// The layers' usual laws: small(d) = N(0, 2 / (5·d)), wang(d, n) = N(0, (2 / (n·√d))²).
Initializer small_law(std::int64_t channels);
Initializer wang_law(std::int64_t channels, int layers);
/// `count` values from `first` to `last`.
Initializer ramp_law(double first, double last, std::int64_t count);

/// The last K - 1 rows of each sequence, after `before` where the sequence is shorter.
Tensor convolution_memory(Memory& memory, const Tensor& x, const Tensor& before, std::int64_t sequences);

}  // namespace bireme
