#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/language_model.h"
#include "models/xlstm_block.h"

namespace bireme {

/// xLSTM (Beck et al. 2024), in the paper's architecture of mLSTM and sLSTM blocks and in the large one of
/// 2025. The residual stream stays in fp32 whatever the compute type. Parameters have the names of the
/// published files.
class Xlstm final : public LanguageModel {
 public:
  /// @throws Error (usage) when an option cannot be, or the tensor degree does not divide heads or widths
  Xlstm(const XlstmOptions& options, Communicator& tensor);

  /// Allocates the parameters. Values are not set: call initialize, copy_from or load next.
  void build(Memory& memory, const ParameterSet::BuildOptions& options);

  const XlstmOptions& options() const { return options_; }
  ParameterSet& parameters() override { return parameters_; }
  const ParameterSet& parameters() const override { return parameters_; }
  std::int64_t vocabulary() const override { return options_.vocabulary; }
  std::int64_t channels() const override { return options_.channels; }
  std::int64_t context() const override { return 0; }
  const VocabularyHead& head() const override { return *head_; }

  Var hidden(Tape& tape, const TokenInput& input, const LanguageForward& how) const override;
  /// The residual stream: first the embeddings, then after each block. Each [B·T, D], fp32 (fp64).
  std::vector<Var> residuals(Tape& tape, const TokenInput& input, const LanguageForward& how) const;

  std::unique_ptr<DecodingState> make_state(const Backend& backend, std::int64_t sequences,
                                            std::int64_t capacity, DType type) const override;
  /// In chunks for several tokens, by the recurrence for one.
  Tensor advance(const Backend& backend, const Tensor& tokens, DecodingState& state) const override;

  double flops(std::int64_t sequences, std::int64_t length) const override;

 private:
  Var last_norm(Tape& tape, const Var& x, DType type) const;

  XlstmOptions options_;
  ParameterSet parameters_;
  std::unique_ptr<VocabularyEmbedding> embedding_;
  std::vector<std::unique_ptr<XlstmBlock>> blocks_;
  Parameter* norm_ = nullptr;
  std::unique_ptr<VocabularyHead> head_;
};

/// What an Xlstm carries from token to token: of the same size at every position.
class XlstmState final : public DecodingState {
 public:
  XlstmState(std::vector<XlstmLayerState> layers, std::int64_t sequences, DType type)
      : layers_(std::move(layers)), sequences_(sequences), type_(type) {}

  std::int64_t sequences() const override { return sequences_; }
  std::int64_t position() const override { return position_; }
  std::int64_t bytes() const override;
  std::unique_ptr<DecodingState> clone() const override;
  const std::vector<XlstmLayerState>& layers() const { return layers_; }

 private:
  friend class Xlstm;
  std::vector<XlstmLayerState> layers_;
  std::int64_t sequences_, position_ = 0;
  DType type_;
};

}  // namespace bireme
