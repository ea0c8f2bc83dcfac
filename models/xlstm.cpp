#include "models/xlstm.h"

#include <spdlog/fmt/fmt.h>

#include <cassert>

#include "core/base/error.h"
#include "core/ops/embedding/embedding.h"
#include "core/ops/norm/norm.h"

namespace bireme {

namespace {

struct Names {
  const char *embedding, *blocks, *norm;
};

Names names_of(XlstmArchitecture architecture) {
  if (architecture == XlstmArchitecture::large)
    return {"backbone.embeddings.weight", "backbone.blocks.", "backbone.out_norm.weight"};
  return {"token_embedding.weight", "xlstm_block_stack.blocks.", "xlstm_block_stack.post_blocks_norm.weight"};
}

}  // namespace

Xlstm::Xlstm(const XlstmOptions& options, Communicator& tensor) : options_(options) {
  options.validate();
  const bool is_large = options.architecture == XlstmArchitecture::large;
  const Names names = names_of(options.architecture);
  VocabularyOptions words{.name = names.embedding,
                          .vocabulary = options.vocabulary,
                          .channels = options.channels,
                          .initial = small_law(options.channels),
                          .decays = false};
  embedding_ = std::make_unique<VocabularyEmbedding>(parameters_, words, tensor);
  for (int i = 0; i < options.layers; ++i)
    blocks_.push_back(
        make_xlstm_block(parameters_, fmt::format("{}{}.", names.blocks, i), options, i, tensor));
  if (options.last_norm)
    norm_ = &parameters_.add({.name = names.norm,
                              .shape = {options.channels},
                              .initial = {.law = Initializer::Law::constant, .value = is_large ? 1.0 : 0.0},
                              .decays = false});
  words.name = "lm_head.weight";
  words.decays = true;
  const VocabularyHead::Options head{.weight = words, .soft_cap = is_large ? options.logit_soft_cap : 0};
  head_ = options.tied ? std::make_unique<VocabularyHead>(*embedding_, head, tensor)
                       : std::make_unique<VocabularyHead>(parameters_, head, tensor);
}

void Xlstm::build(Memory& memory, const ParameterSet::BuildOptions& options) {
  parameters_.build(memory, options);
}

Var Xlstm::last_norm(Tape& tape, const Var& x, DType type) const {
  if (norm_ == nullptr) {
    if (x.dtype() == type) return x;
    throw Error(ErrorKind::usage, "an xlstm without a last norm computes in fp32", "model.type",
                "set run.precision to fp32");
  }
  if (options_.architecture == XlstmArchitecture::large)
    return rms_norm(tape, x, *norm_, static_cast<float>(options_.norm_epsilon), type);
  return group_norm(tape, x, 1, *norm_, kXlstmNormFromOne, kXlstmNormEpsilon, type);
}

std::vector<Var> Xlstm::residuals(Tape& tape, const TokenInput& input, const LanguageForward& how) const {
  const XlstmPass pass{.sequences = input.tokens.shape()[0],
                       .type = how.type,
                       .starts = input.starts,
                       .documents = {input.documents.begin(), input.documents.end()},
                       .state = nullptr};
  std::vector<Var> streams{embedding_->forward(tape, input.tokens)};
  for (const auto& block : blocks_) {
    const Var& x = streams.back();
    // The block runs again during backward, after this call has returned: it takes along what it needs.
    streams.push_back(how.recompute ? tape.recompute(
                                          [&block = *block, pass](Tape& inner, const Var& stream) {
                                            return block.forward(inner, stream, pass);
                                          },
                                          x)
                                    : block->forward(tape, x, pass));
  }
  return streams;
}

Var Xlstm::hidden(Tape& tape, const TokenInput& input, const LanguageForward& how) const {
  Var x = residuals(tape, input, how).back();
  if (input.needed) x = gather_rows(tape, x, input.needed);
  return last_norm(tape, x, how.type);
}

std::unique_ptr<DecodingState> Xlstm::make_state(const Backend& backend, std::int64_t sequences, std::int64_t,
                                                 DType type) const {
  std::vector<XlstmLayerState> layers;
  layers.reserve(blocks_.size());
  for (const auto& block : blocks_) layers.push_back(block->make_state(backend.memory(), sequences, type));
  return std::make_unique<XlstmState>(std::move(layers), sequences, type);
}

Tensor Xlstm::advance(const Backend& backend, const Tensor& tokens, DecodingState& state) const {
  auto& own = dynamic_cast<XlstmState&>(state);
  assert(tokens.shape()[0] == own.sequences_);
  Tape tape(backend, Tape::Mode::inference);
  Var x = embedding_->forward(tape, tokens);
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    x = blocks_[i]->forward(
        tape, x, {.sequences = own.sequences_, .type = own.type_, .starts = {}, .state = &own.layers_[i]});
  own.position_ += tokens.shape()[1];
  return last_norm(tape, x, own.type_).value();
}

double Xlstm::flops(std::int64_t sequences, std::int64_t length) const {
  double per_token = 2 * static_cast<double>(options_.vocabulary) * static_cast<double>(options_.channels);
  for (const auto& block : blocks_) per_token += block->flops_per_token();
  return per_token * static_cast<double>(sequences) * static_cast<double>(length);
}

namespace {

/// Calls f(tensor) for every tensor of a layer's state that is there.
template <class F>
void for_each_tensor(const XlstmLayerState& layer, F&& f) {
  for (const Tensor* tensor : {&layer.mlstm.memory.value(), &layer.mlstm.normalizer.value(),
                               &layer.mlstm.maximum, &layer.slstm.h.value(), &layer.slstm.c.value(),
                               &layer.slstm.n.value(), &layer.slstm.m, &layer.convolution})
    if (tensor->defined()) f(*tensor);
}

}  // namespace

std::int64_t XlstmState::bytes() const {
  std::int64_t total = 0;
  for (const XlstmLayerState& layer : layers_)
    for_each_tensor(layer, [&](const Tensor& tensor) { total += static_cast<std::int64_t>(tensor.bytes()); });
  return total;
}

std::unique_ptr<DecodingState> XlstmState::clone() const {
  const auto copied = [](const Tensor& tensor) {
    return tensor ? bireme::clone(tensor.memory(), tensor) : tensor;
  };
  auto copy = std::make_unique<XlstmState>(layers_, sequences_, type_);
  copy->position_ = position_;
  for (XlstmLayerState& layer : copy->layers_) {
    layer.mlstm = {Var(copied(layer.mlstm.memory.value())), Var(copied(layer.mlstm.normalizer.value())),
                   copied(layer.mlstm.maximum)};
    layer.slstm = {Var(copied(layer.slstm.h.value())), Var(copied(layer.slstm.c.value())),
                   Var(copied(layer.slstm.n.value())), copied(layer.slstm.m)};
    layer.convolution = copied(layer.convolution);
  }
  return copy;
}

}  // namespace bireme
