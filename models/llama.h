#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "models/language_model.h"
#include "models/llama_block.h"
#include "models/llama_options.h"

namespace bireme {

class LlamaState;

/// LLaMA (Touvron et al. 2023): a causal transformer with rms norms before each branch, rotary positions,
/// SwiGLU and, where there are fewer key and value than query heads, grouped queries. The residual stream
/// stays in fp32 whatever the compute type. Over tensor ranks, heads and the SwiGLU's width are split.
class Llama final : public LanguageModel {
 public:
  /// @throws Error (usage) when an option cannot be, or the tensor degree does not divide heads or width
  Llama(const LlamaOptions& options, Communicator& tensor);

  /// Allocates the parameters. Values are not set: initialize, copy_from or import next.
  void build(Memory& memory, const ParameterSet::BuildOptions& options) {
    parameters_.build(memory, options);
  }

  const LlamaOptions& options() const { return options_; }
  ParameterSet& parameters() override { return parameters_; }
  const ParameterSet& parameters() const override { return parameters_; }
  std::int64_t vocabulary() const override { return options_.vocabulary; }
  std::int64_t channels() const override { return options_.channels; }
  std::int64_t context() const override { return options_.context; }
  const VocabularyHead& head() const override { return *head_; }

  Var hidden(Tape& tape, const TokenInput& input, const LanguageForward& how) const override;

  std::unique_ptr<DecodingState> make_state(const Backend& backend, std::int64_t sequences,
                                            std::int64_t capacity, DType type) const override;
  Tensor advance(const Backend& backend, const Tensor& tokens, DecodingState& state) const override;

  double flops(std::int64_t sequences, std::int64_t length) const override;

 private:
  /// What a forward pass needs to know of its rows.
  struct Rows {
    DType type = DType::f32;
    std::int64_t length = 0;           // T
    Tensor positions;                  // [B·T] i32, within the document
    Tensor first;                      // [B·T] i32: where the document starts in the sequence; undefined: 0
    std::vector<Branching> documents;  // in place of sequences, where there are any
    Tensor needed;                     // [N] i32: rows that the last block ends with; undefined: all
    RotaryTable table;
  };
  Rows rows_of(Memory& memory, const TokenInput& input, DType type) const;
  RotaryTable rotary_table(Memory& memory, std::int64_t positions, DType type) const;
  Var norm(Tape& tape, const Var& x, Parameter& gain, const Rows& rows) const;
  /// Whether a block ends with the needed rows alone: of the others only keys and values are read.
  bool thins_out(const LlamaBlock& block, const Rows& rows) const;
  Var attend(Tape& tape, const LlamaBlock& block, const Var& y, const Rows& rows) const;
  /// A block and its residual additions as one function of the stream.
  Var run_block(Tape& tape, const Var& all, const LlamaBlock& block, const Rows& rows) const;

  LlamaOptions options_;
  AttentionHeads heads_;  // held by this rank
  ParameterSet parameters_;
  std::unique_ptr<VocabularyEmbedding> embedding_;
  std::vector<LlamaBlock> blocks_;
  Parameter* norm_ = nullptr;
  std::unique_ptr<VocabularyHead> head_;
  // Built when first needed and kept: cosines of a whole context take as long as a small forward pass.
  mutable std::mutex table_mutex_;
  mutable RotaryTable table_;
};

}  // namespace bireme
