#pragma once

#include "models/dino_head.h"
#include "models/model.h"
#include "models/vision_transformer.h"

namespace bireme {

struct DinoNetworkOptions {
  VisionTransformerOptions backbone;
  DinoHeadOptions head;  ///< its in_dim is taken from the backbone
};

/// What DINO trains: a vision transformer, named `backbone.…`, and its projection head, named `head.…`.
/// Student and teacher are two of these, of the same structure, the teacher without stochastic depth.
class DinoNetwork final : public Model {
 public:
  /// @param sum  adds batch norm's sums over the data ranks; empty for one rank
  DinoNetwork(const DinoNetworkOptions& options, Communicator& tensor, SumOverRanks sum = {});

  /// Allocates parameters and statistics. Values are not set: call initialize, copy_from or load next.
  void build(Memory& memory, const ParameterSet::BuildOptions& options);

  ParameterSet& parameters() override { return parameters_; }
  const ParameterSet& parameters() const override { return parameters_; }
  VisionTransformer& backbone() { return backbone_; }
  const VisionTransformer& backbone() const { return backbone_; }
  DinoHead& head() { return head_; }
  const DinoHead& head() const { return head_; }

  /// Logits of all crops, crop-major: row = crop · B + image, [V·B, K / tensor ranks], in the compute type.
  /// The head sees all rows at once, which is what its batch norm wants.
  Var forward(Tape& tape, std::span<const ImageGroup> groups, const VisionForward& how = {});

  /// Stochastic depth for the next forward pass; empty when the backbone has none.
  KeepBranch keep(DropPathKeys keys) const;

  /// Floating-point operations of a forward pass over these groups, two per multiply-add, matrix products and
  /// attention only, summed over tensor ranks. A backward pass costs twice as much.
  double flops(std::span<const ImageGroup> groups) const;

 private:
  ParameterSet parameters_;
  VisionTransformer backbone_;
  DinoHead head_;
};

}  // namespace bireme
