#pragma once

#include <string>
#include <vector>

#include "core/ops/norm/norm.h"
#include "distributed/communicator.h"
#include "models/encoder_block.h"

namespace bireme {

struct DinoHeadOptions {
  std::int64_t in_dim = 384;  ///< D of the backbone
  int layers = 3;             ///< linears of the MLP, all counted; 1: a single linear in_dim → bottleneck
  std::int64_t hidden = 2048;
  std::int64_t bottleneck = 256;
  std::int64_t out_dim = 65536;  ///< K, prototypes
  bool batch_norm = false;       ///< after each hidden linear, before GELU
  bool norm_last_layer = true;   ///< the prototypes' lengths stay 1; false: they are trained
  double init_std = 0.02;        ///< of linear weights; 0: Xavier-uniform

  /// @throws Error (usage) naming the first setting that cannot be
  void validate() const;
};

/// DINO's projection head (Caron et al. 2021, appendix C):
///     h = GELU([BN](W·h + b)) for every linear but the last,  e = W·h + b,  u = e / max(‖e‖₂, 1e-12),
///     logits = u·Wᵀ,  W_k = g_k · v_k / ‖v_k‖
/// Over tensor ranks the MLP is replicated and the K prototypes are split: each rank yields its columns of
/// the logits.
class DinoHead {
 public:
  /// Running statistics of a batch norm, published as PREFIX.running_mean and PREFIX.running_var.
  struct Buffer {
    std::string name;
    Tensor value;  // [hidden] fp32
  };

  /// Registers the parameters under their official names, each preceded by `prefix`.
  /// @param sum  adds batch norm's sums over the ranks that share a batch; empty for one rank
  /// @throws Error (usage) when an option cannot be, or the tensor degree does not divide K
  DinoHead(const DinoHeadOptions& options, ParameterSet& parameters, const std::string& prefix,
           Communicator& tensor, SumOverRanks sum = {});

  const DinoHeadOptions& options() const { return options_; }

  /// Allocates the batch norms' running statistics: mean 0, variance 1. Once, before the first forward pass.
  void build(Memory& memory);
  /// Empty without batch norm. The tensors share memory with the head: to load them is to write into them.
  std::vector<Buffer> buffers() const;

  struct Stages {
    Var mlp;         ///< e [R, bottleneck]
    Var normalized;  ///< u [R, bottleneck]
    Var weight;      ///< W [K / size, bottleneck]
    Var logits;      ///< [R, K / size]
  };
  /// @param features  [R, D]; with batch norm its statistics are those of these rows, over all ranks
  /// @return          each stage in the type of the features
  Stages stages(Tape& tape, const Var& features);
  Var logits(Tape& tape, const Var& features) { return stages(tape, features).logits; }

  /// While frozen, the prototypes get no gradient and the optimiser leaves them alone (the first epoch).
  void freeze_last_layer(bool frozen);

 private:
  struct Layer {
    Parameter* weight = nullptr;
    Parameter* bias = nullptr;
    LayerNormParameters norm;  // gain and bias of the batch norm, if any
    std::string norm_name;
    BatchNormState statistics;
  };
  void add_layers(ParameterSet& parameters, const std::string& prefix);
  Var mlp(Tape& tape, const Var& features);

  DinoHeadOptions options_;
  Communicator& tensor_;
  SumOverRanks sum_;
  std::vector<Layer> layers_;
  Parameter* magnitude_;  // g [K, 1]
  Parameter* direction_;  // v [K, bottleneck]
};

}  // namespace bireme
