#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/ops/sequences.h"
#include "distributed/vocabulary.h"
#include "models/model.h"

namespace bireme {

/// What a language model reads.
struct TokenInput {
  const Tensor& tokens;  ///< [B, T] i32
  const Tensor& starts;  ///< [B, T] u8, 1 at the first token of a document; undefined: one document each
  /// Documents that branch, in place of sequences: the tokens are [1, R], and the documents make up these R
  /// rows in their order. Neither state nor attention reaches from one to another. Empty: as `starts` says.
  std::span<const Branching> documents = {};
  /// [N] i32, ascending: the rows whose hidden vectors are wanted, which spares the last layer the others;
  /// undefined: all.
  Tensor needed = {};
};

/// How a forward pass is to run.
struct LanguageForward {
  DType type = DType::f32;  ///< compute type: fp32 or bf16; fp64 in checks, where the parameters are fp64 too
  bool recompute = false;   ///< keep the input of each block only, and run it again on the way back
};

/// What a model carries from token to token in inference, for B sequences: the state of a recurrent model, or
/// the keys and values of an attention. Belongs to the model that made it.
class DecodingState {
 public:
  virtual ~DecodingState() = default;
  virtual std::int64_t sequences() const = 0;
  /// Tokens read so far by each sequence.
  virtual std::int64_t position() const = 0;
  virtual std::int64_t bytes() const = 0;
  /// An independent copy, from which decoding can branch.
  virtual std::unique_ptr<DecodingState> clone() const = 0;
};

/// A network that predicts the next token. Trained in parallel over time, run token by token in inference;
/// both forms share the weights and agree to rounding.
class LanguageModel : public Model {
 public:
  virtual std::int64_t vocabulary() const = 0;
  virtual std::int64_t channels() const = 0;  ///< D, width of the hidden vectors
  /// Longest sequence that the model was made for; 0 where there is no such thing.
  virtual std::int64_t context() const = 0;

  /// The vectors that the head reads, after the final norm: [B·T, D] in the compute type, or [N, D] of the
  /// rows that are needed.
  /// @throws Error (data) naming the first token that is not in the vocabulary
  virtual Var hidden(Tape& tape, const TokenInput& input, const LanguageForward& how) const = 0;
  virtual const VocabularyHead& head() const = 0;

  /// The state before the first token.
  /// @param capacity  tokens that will be read at most; models with a state of constant size ignore it
  virtual std::unique_ptr<DecodingState> make_state(const Backend& backend, std::int64_t sequences,
                                                    std::int64_t capacity, DType type) const = 0;
  /// Reads T more tokens of each sequence, all at once: hidden vectors [B·T, D] of these. A prompt may be cut
  /// anywhere. No gradient.
  virtual Tensor advance(const Backend& backend, const Tensor& tokens, DecodingState& state) const = 0;

  /// Floating-point operations of a forward pass over B sequences of T tokens, two per multiply-add, matrix
  /// products and the operator that mixes tokens only, summed over tensor ranks.
  virtual double flops(std::int64_t sequences, std::int64_t length) const = 0;
};

}  // namespace bireme
