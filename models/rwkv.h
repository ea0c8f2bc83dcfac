#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "models/language_model.h"
#include "models/rwkv_block.h"
#include "models/rwkv_options.h"
#include "models/rwkv_state.h"

namespace bireme {

/// RWKV-4 (Peng et al. 2023): a recurrent network that trains like a transformer, in parallel over time and
/// at a cost linear in it. The residual stream stays in fp32 whatever the compute type. Parameters have the
/// names of the published files: emb.weight, blocks.i.…, ln_out.…, head.weight.
class Rwkv final : public LanguageModel {
 public:
  /// @throws Error (usage) when an option cannot be, or the tensor degree does not divide a width
  Rwkv(const RwkvOptions& options, Communicator& tensor);

  /// Allocates the parameters. Values are not set: call initialize, copy_from or load next.
  void build(Memory& memory, const ParameterSet::BuildOptions& options);

  const RwkvOptions& options() const { return options_; }
  ParameterSet& parameters() override { return parameters_; }
  const ParameterSet& parameters() const override { return parameters_; }
  std::int64_t vocabulary() const override { return options_.vocabulary; }
  std::int64_t channels() const override { return options_.channels; }
  std::int64_t context() const override { return 0; }
  const VocabularyHead& head() const override { return *head_; }

  Var hidden(Tape& tape, const TokenInput& input, const LanguageForward& how) const override;

  std::unique_ptr<DecodingState> make_state(const Backend& backend, std::int64_t sequences,
                                            std::int64_t capacity, DType type) const override;
  Tensor advance(const Backend& backend, const Tensor& tokens, DecodingState& state) const override;

  /// A look at the residual stream [B·T, D], which may be changed in place: `after` counts blocks, -1 stands
  /// for the embeddings before their norm.
  using Edit = std::function<void(int after, const Tensor& stream)>;
  /// The hidden vectors of a forward pass that is watched or tampered with. No gradient.
  Tensor hidden_with(const Backend& backend, const TokenInput& input, DType type, const Edit& edit) const;

  double flops(std::int64_t sequences, std::int64_t length) const override;

 private:
  /// epsilon of a norm after `blocks` blocks.
  float epsilon(const Tape& tape, float base, int blocks) const;
  Var norm(Tape& tape, const Var& x, const LayerNormParameters& norm, int blocks, DType type) const;
  Var embed(Tape& tape, const Tensor& tokens, const Edit* edit) const;
  /// Block and residual additions as one function of the stream, norms as passes of their own.
  Var run_block(Tape& tape, const Var& x, int block, const Sequences& sequences, DType type,
                RwkvLayerState* state, const Tensor& needed = {}) const;
  Var last_norm(Tape& tape, const Var& x, DType type) const;
  /// The blocks and the last norm, norms fused with the additions before them.
  Var encode(Tape& tape, Var x, const Sequences& sequences, DType type, RwkvState* state,
             const Tensor& needed = {}) const;

  RwkvOptions options_;
  Communicator& tensor_;
  ParameterSet parameters_;
  std::unique_ptr<VocabularyEmbedding> embedding_;
  LayerNormParameters norm0_;
  std::vector<RwkvBlock> blocks_;
  LayerNormParameters norm_;
  std::unique_ptr<VocabularyHead> head_;
};

}  // namespace bireme
