#include "distributed/vocabulary.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/ops/embedding/embedding.h"
#include "core/ops/loss/token_loss.h"
#include "core/ops/loss/token_scores.h"
#include "distributed/collective_ops.h"

namespace bireme {

namespace {

Partition rows_of_rank(int rank, int size) {
  return {.axis = 0, .part = rank, .parts = size, .uneven = true};
}

Parameter& add_weight(ParameterSet& parameters, const VocabularyOptions& options,
                      const Communicator& tensor) {
  return parameters.add({.name = options.name,
                         .shape = {options.vocabulary, options.channels},
                         .initial = options.initial,
                         .partition = rows_of_rank(tensor.rank(), tensor.size()),
                         .decays = options.decays});
}

std::int64_t first_row(const Parameter& weight) {
  return axis_runs(weight.whole_shape(), weight.partition()).front().whole;
}

/// @param lowest  -1 where that stands for "none"
void require_in_vocabulary(const char* what, const Tensor& tokens, std::int64_t vocabulary,
                           std::int32_t lowest) {
  for (std::int64_t i = 0; i < tokens.elements(); ++i) {
    const std::int32_t token = tokens.data<std::int32_t>()[i];
    if (token >= lowest && token < vocabulary) continue;
    throw Error(ErrorKind::data,
                fmt::format("{} {} at position {} lies outside the vocabulary (0 ... {})", what, token, i,
                            vocabulary - 1),
                "tokens", "use the tokenizer that the model was made for");
  }
}

}  // namespace

VocabularyEmbedding::VocabularyEmbedding(ParameterSet& parameters, const VocabularyOptions& options,
                                         Communicator& tensor)
    : tensor_(tensor), weight_(add_weight(parameters, options, tensor)) {}

Var VocabularyEmbedding::forward(Tape& tape, const Tensor& tokens) const {
  require_in_vocabulary("token", tokens, weight_.whole_shape().front(), 0);
  return reduce_from(tape, look_up(tape, tokens, weight_, first_row(weight_)), tensor_);
}

VocabularyHead::VocabularyHead(ParameterSet& parameters, const Options& options, Communicator& tensor)
    : tensor_(tensor), weight_(add_weight(parameters, options.weight, tensor)), soft_cap_(options.soft_cap) {}

VocabularyHead::VocabularyHead(const VocabularyEmbedding& tied, const Options& options, Communicator& tensor)
    : tensor_(tensor), weight_(tied.weight()), soft_cap_(options.soft_cap) {}

TokenHead VocabularyHead::part() const {
  TokenHead head{.weight = weight_, .first = first_row(weight_), .soft_cap = soft_cap_};
  if (tensor_.size() > 1) {
    head.reduce = [this](const Tensor& rows, RowReduction reduction) {
      tensor_.all_reduce(rows, reduction == RowReduction::max ? Reduce::max : Reduce::sum).wait();
    };
  }
  return head;
}

TokenLoss VocabularyHead::loss(Tape& tape, const Var& hidden, const Tensor& targets,
                               const TokenLossOptions& options) const {
  require_in_vocabulary("target", targets, weight_.whole_shape().front(), -1);
  const TokenLossResult result =
      token_loss(tape, copy_to(tape, hidden, tensor_), targets, part(),
                 {.count = options.count, .z_loss = options.z_loss, .l2_wrap = options.l2_wrap});
  TokenLoss loss{.loss = result.loss,
                 .top = result.top,
                 .log_probability = result.log_probability,
                 .is_top = result.is_top};
  for (const std::int32_t target : targets.values<std::int32_t>()) loss.count += target >= 0 ? 1 : 0;
  return loss;
}

Var VocabularyHead::scores(Tape& tape, const Var& hidden, const Tensor& rows, const Tensor& targets) const {
  require_in_vocabulary("target", targets, weight_.whole_shape().front(), 0);
  return token_scores(tape, copy_to(tape, gather_rows(tape, hidden, rows), tensor_), targets, part());
}

Tensor VocabularyHead::logits(const Backend& backend, const Tensor& hidden) const {
  Tensor mine = token_logits(backend, hidden, part());
  if (tensor_.size() == 1) return mine;
  // Parts side by side for the exchange, the smaller ones padded to the size of the first.
  const Shape& whole = weight_.whole_shape();
  const std::int64_t rows = hidden.rows(), vocabulary = whole.front();
  const std::int64_t widest = local_shape(whole, rows_of_rank(0, tensor_.size())).front();
  const Tensor parts(backend.memory(), {tensor_.size(), rows * widest}, mine.dtype());
  const Tensor share = parts.slice(tensor_.rank(), tensor_.rank() + 1);
  copy(mine, share.view(0, mine.shape()));
  tensor_.all_gather(share, parts).wait();
  Tensor logits(backend.memory(), {rows, vocabulary}, mine.dtype());
  for (int rank = 0; rank < tensor_.size(); ++rank) {
    const Partition columns{.axis = 1, .part = rank, .parts = tensor_.size(), .uneven = true};
    place_part(parts.view(rank * rows * widest, local_shape(logits.shape(), columns)), logits, columns);
  }
  return logits;
}

}  // namespace bireme
