#include "models/rwkv.h"

#include <spdlog/fmt/fmt.h>

#include <cassert>
#include <cmath>

#include "core/ops/embedding/embedding.h"
#include "core/ops/norm/norm.h"
#include "core/ops/pointwise/pointwise.h"
#include "models/rwkv_step.h"

namespace bireme {

namespace {

constexpr float kLastEpsilon = 1e-5f;

Initializer head_law(const RwkvOptions& options) {
  const double widening =
      std::sqrt(static_cast<double>(options.vocabulary) / static_cast<double>(options.channels));
  return {.law = Initializer::Law::orthogonal, .value = 0.5 * std::max(1.0, widening)};
}

Sequences sequences_of(const Backend& backend, const TokenInput& input) {
  return {.count = input.tokens.shape()[0],
          .length = input.tokens.shape()[1],
          .starts = on_device(backend.memory(), input.starts),
          .documents = {input.documents.begin(), input.documents.end()}};
}

}  // namespace

Rwkv::Rwkv(const RwkvOptions& options, Communicator& tensor) : options_(options), tensor_(tensor) {
  options.validate();
  const auto vocabulary = [&](const char* name, const Initializer& initial) {
    return VocabularyOptions{
        .name = name, .vocabulary = options.vocabulary, .channels = options.channels, .initial = initial};
  };
  embedding_ = std::make_unique<VocabularyEmbedding>(
      parameters_,
      vocabulary("emb.weight", {.law = Initializer::Law::uniform, .value = options.embedding_range}), tensor);
  norm0_ = add_layer_norm(parameters_, "blocks.0.ln0", options.channels);
  for (int i = 0; i < options.layers; ++i)
    blocks_.emplace_back(parameters_, fmt::format("blocks.{}.", i), i, options, tensor);
  norm_ = add_layer_norm(parameters_, "ln_out", options.channels);
  const VocabularyHead::Options head{.weight = vocabulary("head.weight", head_law(options))};
  head_ = options.tie_embeddings ? std::make_unique<VocabularyHead>(*embedding_, head, tensor)
                                 : std::make_unique<VocabularyHead>(parameters_, head, tensor);
}

void Rwkv::build(Memory& memory, const ParameterSet::BuildOptions& options) {
  parameters_.build(memory, options);
}

float Rwkv::epsilon(const Tape& tape, float base, int blocks) const {
  if (options_.rescale_every == 0 || tape.recording()) return base;
  return base * static_cast<float>(std::pow(4.0, blocks / options_.rescale_every));
}

Var Rwkv::norm(Tape& tape, const Var& x, const LayerNormParameters& norm, int blocks, DType type) const {
  return layer_norm(tape, x, *norm.gain, *norm.bias, epsilon(tape, options_.layer_norm_epsilon, blocks),
                    type);
}

Var Rwkv::last_norm(Tape& tape, const Var& x, DType type) const {
  return layer_norm(tape, x, *norm_.gain, *norm_.bias, epsilon(tape, kLastEpsilon, options_.layers), type);
}

Var Rwkv::embed(Tape& tape, const Tensor& tokens, const Edit* edit) const {
  const Var x = embedding_->forward(tape, tokens);
  if (edit != nullptr) (*edit)(-1, x.value());
  return norm(tape, x, norm0_, 0, x.dtype());
}

Var Rwkv::run_block(Tape& tape, const Var& x, int block, const Sequences& sequences, DType type,
                    RwkvLayerState* state, const Tensor& needed) const {
  const RwkvBlock& at = blocks_[static_cast<std::size_t>(block)];
  const Var y = norm(tape, x, at.norm1(), block, type);
  const LayerNormParameters& norm2 = at.norm2();
  const ResidualNorm sum =
      residual_layer_norm(tape, x, at.time_mix(tape, y, sequences, state), {}, *norm2.gain, *norm2.bias,
                          epsilon(tape, options_.layer_norm_epsilon, block), type);
  const Var stream = needed ? gather_rows(tape, sum.x, needed) : sum.x;
  return residual_add(tape, stream, at.channel_mix(tape, sum.y, sequences, state, needed));
}

Var Rwkv::encode(Tape& tape, Var x, const Sequences& sequences, DType type, RwkvState* state,
                 const Tensor& needed) const {
  const float base = options_.layer_norm_epsilon;
  Var y = norm(tape, x, blocks_.front().norm1(), 0, type);
  for (int i = 0; i < options_.layers; ++i) {
    const RwkvBlock& at = blocks_[static_cast<std::size_t>(i)];
    RwkvLayerState* const layer = state != nullptr ? &state->layers()[static_cast<std::size_t>(i)] : nullptr;
    const ResidualNorm middle =
        residual_layer_norm(tape, x, at.time_mix(tape, y, sequences, layer), {}, *at.norm2().gain,
                            *at.norm2().bias, epsilon(tape, base, i), type);
    const bool is_last = i + 1 == options_.layers;
    const LayerNormParameters& next = is_last ? norm_ : blocks_[static_cast<std::size_t>(i) + 1].norm1();
    const Tensor rows = is_last ? needed : Tensor();
    const Var stream = rows ? gather_rows(tape, middle.x, rows) : middle.x;
    const ResidualNorm end = residual_layer_norm(
        tape, stream, at.channel_mix(tape, middle.y, sequences, layer, rows), {}, *next.gain, *next.bias,
        epsilon(tape, is_last ? kLastEpsilon : base, i + 1), type);
    x = end.x;
    y = end.y;
  }
  return y;
}

Var Rwkv::hidden(Tape& tape, const TokenInput& input, const LanguageForward& how) const {
  const Sequences sequences = sequences_of(tape.backend(), input);
  Var x = embed(tape, input.tokens, nullptr);
  if (!how.recompute) return encode(tape, x, sequences, how.type, nullptr, input.needed);
  for (int i = 0; i < options_.layers; ++i) {
    // The block runs again during backward, after this call has returned: it takes along what it needs.
    const Tensor needed = i + 1 == options_.layers ? input.needed : Tensor();
    x = tape.recompute(
        [this, i, sequences, type = how.type, needed](Tape& inner, const Var& stream) {
          return run_block(inner, stream, i, sequences, type, nullptr, needed);
        },
        x);
  }
  return last_norm(tape, x, how.type);
}

Tensor Rwkv::hidden_with(const Backend& backend, const TokenInput& input, DType type,
                         const Edit& edit) const {
  Tape tape(backend, Tape::Mode::inference);
  const Sequences sequences = sequences_of(backend, input);
  Var x = embed(tape, input.tokens, &edit);
  for (int i = 0; i < options_.layers; ++i) {
    x = run_block(tape, x, i, sequences, type, nullptr);
    edit(i, x.value());
  }
  return last_norm(tape, x, type).value();
}

std::unique_ptr<DecodingState> Rwkv::make_state(const Backend& backend, std::int64_t sequences,
                                                std::int64_t /*capacity*/, DType type) const {
  std::vector<RwkvLayerState> layers;
  layers.reserve(blocks_.size());
  for (const RwkvBlock& block : blocks_)
    layers.push_back(block.empty_state(backend.memory(), sequences, type));
  return std::make_unique<RwkvState>(std::move(layers), sequences, type);
}

Tensor Rwkv::advance(const Backend& backend, const Tensor& tokens, DecodingState& decoding) const {
  auto& state = dynamic_cast<RwkvState&>(decoding);
  const std::int64_t sequences = state.sequences(), length = tokens.shape()[1];
  require_shape("rwkv: tokens", tokens, {sequences, length});
  if (length == 0) return {backend.memory(), {0, options_.channels}, state.type()};
  Tape tape(backend, Tape::Mode::inference);
  const Var x = embed(tape, tokens, nullptr);
  state.moved_on(length);
  if (length > 1 || tensor_.size() > 1)
    return encode(tape, x, {.count = sequences, .length = length}, state.type(), &state).value();
  if (!state.step()) state.step() = std::make_unique<RwkvStep>(backend, sequences, options_, state.type());
  RwkvStep& step = *state.step();
  const float base = options_.layer_norm_epsilon;
  step.begin(x.value(), {blocks_.front().norm1(), epsilon(tape, base, 0)});
  for (int i = 0; i < options_.layers; ++i) {
    const RwkvBlock& block = blocks_[static_cast<std::size_t>(i)];
    const bool is_last = i + 1 == options_.layers;
    const LayerNormParameters& next = is_last ? norm_ : blocks_[static_cast<std::size_t>(i) + 1].norm1();
    step.block(block, state.layers()[static_cast<std::size_t>(i)], {block.norm2(), epsilon(tape, base, i)},
               {next, epsilon(tape, is_last ? kLastEpsilon : base, i + 1)});
  }
  return clone(backend.memory(), step.result());
}

double Rwkv::flops(std::int64_t sequences, std::int64_t length) const {
  const auto d = static_cast<double>(options_.channels), a = static_cast<double>(options_.inner()),
             h = static_cast<double>(options_.ffn()), v = static_cast<double>(options_.vocabulary);
  constexpr double kWkvProducts = 4;  // per channel and token: two sums moved on, two read
  const double block = 4 * a * d + 2 * h * d + d * d + kWkvProducts * a;
  return 2 * static_cast<double>(sequences * length) * (v * d + options_.layers * block);
}

}  // namespace bireme
