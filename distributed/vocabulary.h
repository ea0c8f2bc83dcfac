#pragma once

#include <cstdint>
#include <string>

#include "core/autograd/tape.h"
#include "core/ops/loss/token_loss.h"
#include "distributed/communicator.h"

namespace bireme {

/// The rows of an embedding or head, split over the ranks of the tensor axis. The vocabulary need not divide
/// by their number: the first V mod P ranks hold one row more.
struct VocabularyOptions {
  std::string name;  ///< of the weight, [vocabulary, channels]
  std::int64_t vocabulary = 0;
  std::int64_t channels = 0;
  Initializer initial = {};
  bool decays = true;
};

/// Token embedding: y[r] = E[token[r]].
class VocabularyEmbedding {
 public:
  VocabularyEmbedding(ParameterSet& parameters, const VocabularyOptions& options, Communicator& tensor);

  /// @param tokens  [B, T] i32
  /// @return        [B·T, C] in fp32 (fp64): the residual stream; the same on all ranks
  /// @throws Error  (data) naming the first token that is not in 0 … vocabulary - 1
  Var forward(Tape& tape, const Tensor& tokens) const;
  Parameter& weight() const { return weight_; }

 private:
  Communicator& tensor_;
  Parameter& weight_;
};

/// What the loss of a language model adds to the cross-entropy.
struct TokenLossOptions {
  double count = 1;  ///< the losses are divided by this
  /// z-loss as in PaLM: z_loss · mean of log²(sum of exp(logits)).
  double z_loss = 0;
  /// L2Wrap of RWKV's training code: the gradient of ½ · l2_wrap · mean of max(logits)², scaled like the
  /// loss; not part of the value.
  double l2_wrap = 0;
};

struct TokenLoss {
  Var loss;                ///< scalar: this rank's share, cross-entropy and z-loss
  double count = 0;        ///< targets that are not -1
  Tensor top;              ///< scalar, fp64: of these, the ones that no other token is more probable than
  Tensor log_probability;  ///< [R] fp32: of each target, 0 where there is none
  Tensor is_top;           ///< [R] u8: 1 where the target is one of those
};

/// logits = cap(hidden · Wᵀ), with the rows of W split over the tensor ranks, and the cross-entropy on top of
/// it, computed for slices of rows so that [R, V] never exists.
class VocabularyHead {
 public:
  struct Options {
    VocabularyOptions weight;
    /// cap(x) = soft_cap · tanh(x / soft_cap); 0: none.
    double soft_cap = 0;
  };
  VocabularyHead(ParameterSet& parameters, const Options& options, Communicator& tensor);
  /// Shares the embedding's weight.
  VocabularyHead(const VocabularyEmbedding& tied, const Options& options, Communicator& tensor);

  /// The result is the same on all tensor ranks.
  /// @param hidden   [R, C], compute type
  /// @param targets  [R] (or [B, T]) i32, -1: not counted
  /// @throws Error   (data) naming the first target that is neither -1 nor in the vocabulary
  TokenLoss loss(Tape& tape, const Var& hidden, const Tensor& targets, const TokenLossOptions& options) const;
  /// log p(target) of some rows, a row as often as it is asked for, each time with a target of its own:
  /// [N] fp64, whose gradient is what each counts for (see token_scores). The same on all tensor ranks.
  /// @param hidden   [R, C], compute type
  /// @param rows     [N] i32: of hidden
  /// @param targets  [N] i32
  /// @throws Error   (data) naming the first target that is not in the vocabulary
  Var scores(Tape& tape, const Var& hidden, const Tensor& rows, const Tensor& targets) const;
  /// The whole logits on every rank: [R, V] fp32 (fp64). No gradient.
  Tensor logits(const Backend& backend, const Tensor& hidden) const;
  Parameter& weight() const { return weight_; }

 private:
  TokenHead part() const;
  Communicator& tensor_;
  Parameter& weight_;
  double soft_cap_;
};

}  // namespace bireme
