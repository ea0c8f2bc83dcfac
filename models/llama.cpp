#include "models/llama.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <numeric>

#include "core/ops/attention/attention_kernels.h"
#include "core/ops/embedding/embedding.h"
#include "core/ops/lane_type.h"
#include "core/ops/norm/norm.h"
#include "core/ops/pointwise/pointwise.h"
#include "models/llama_state.h"

namespace bireme {

namespace {

AttentionHeads heads_of_rank(const LlamaOptions& options, const Communicator& tensor) {
  AttentionHeads heads = options.attention_heads();
  require_tensor_degree(tensor.size(), heads.queries, "attention heads", "model.heads");
  require_tensor_degree(tensor.size(), heads.keys, "key and value heads", "model.kv_heads");
  heads.queries /= tensor.size();
  heads.keys /= tensor.size();
  return heads;
}

/// The position of each row in its document; branches go on counting from the trunk.
void number_branches(std::span<const Branching> documents, const Tensor& positions) {
  std::int32_t* at = positions.data<std::int32_t>();
  for (const Branching& document : documents) {
    for (const Branching::Piece& piece : document.pieces()) {
      const std::int64_t first = piece.is_branch ? document.trunk : 0;
      std::iota(at + piece.begin, at + piece.begin + piece.length, static_cast<std::int32_t>(first));
    }
  }
}

/// Positions of the longest way from a root to a leaf.
std::int64_t longest(std::span<const Branching> documents) {
  std::int64_t length = 0;
  for (const Branching& document : documents) {
    std::int64_t branch = 0;
    for (const std::int64_t rows : document.branches) branch = std::max(branch, rows);
    length = std::max(length, document.trunk + branch);
  }
  return length;
}

}  // namespace

Llama::Llama(const LlamaOptions& options, Communicator& tensor) : options_(options) {
  options.validate();
  heads_ = heads_of_rank(options, tensor);
  const auto vocabulary = [&](const char* name) {
    return VocabularyOptions{.name = name,
                             .vocabulary = options.vocabulary,
                             .channels = options.channels,
                             .initial = {.law = Initializer::Law::normal, .value = options.init_std}};
  };
  embedding_ =
      std::make_unique<VocabularyEmbedding>(parameters_, vocabulary("model.embed_tokens.weight"), tensor);
  for (int i = 0; i < options.layers; ++i)
    blocks_.emplace_back(parameters_, fmt::format("model.layers.{}.", i), options, tensor);
  norm_ = &add_rms_norm(parameters_, "model.norm.weight", options.channels);
  const VocabularyHead::Options head{.weight = vocabulary("lm_head.weight")};
  head_ = options.tie_embeddings ? std::make_unique<VocabularyHead>(*embedding_, head, tensor)
                                 : std::make_unique<VocabularyHead>(parameters_, head, tensor);
}

RotaryTable Llama::rotary_table(Memory& memory, std::int64_t positions, DType type) const {
  const std::lock_guard lock(table_mutex_);
  const bool has_type = table_.positions() > 0 && table_.cosines.dtype() == lane_type(type);
  // Frequencies of the type `dynamic` depend on the length, beyond the context that the model was made for.
  const std::int64_t wanted = std::max(positions, options_.context);
  const bool fits =
      options_.rotary.type == "dynamic" ? table_.positions() == wanted : table_.positions() >= positions;
  if (!has_type || !fits)
    table_ = RotaryTable(memory, options_.rotary, heads_.dimension, wanted, lane_type(type));
  return table_;
}

Llama::Rows Llama::rows_of(Memory& memory, const TokenInput& input, DType type) const {
  const std::int64_t count = input.tokens.elements();
  const std::int64_t length =
      input.documents.empty() ? input.tokens.shape().back() : longest(input.documents);
  Rows rows{.type = type,
            .length = length,
            .positions = Tensor(memory.host(), {count}, DType::i32),
            .first = input.starts ? Tensor(memory.host(), {count}, DType::i32) : Tensor(),
            .documents = {input.documents.begin(), input.documents.end()},
            .needed = input.needed,
            .table = rotary_table(memory, length, type)};
  if (!rows.documents.empty()) {
    number_branches(rows.documents, rows.positions);
    rows.positions = on_device(memory, rows.positions);
    return rows;
  }
  std::int64_t first = 0;
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int64_t t = r % length;
    if (t == 0 || (input.starts && input.starts.data<std::uint8_t>()[r] != 0)) first = t;
    rows.positions.data<std::int32_t>()[r] = static_cast<std::int32_t>(t - first);
    if (input.starts) rows.first.data<std::int32_t>()[r] = static_cast<std::int32_t>(first);
  }
  rows.positions = on_device(memory, rows.positions);
  rows.first = on_device(memory, rows.first);
  return rows;
}

Var Llama::norm(Tape& tape, const Var& x, Parameter& gain, const Rows& rows) const {
  return rms_norm(tape, x, gain, options_.epsilon, rows.type);
}

bool Llama::thins_out(const LlamaBlock& block, const Rows& rows) const {
  return rows.needed && &block == &blocks_.back();
}

Var Llama::attend(Tape& tape, const LlamaBlock& block, const Var& y, const Rows& rows) const {
  const Var qkv = rotate(tape, block.queries_keys_values(tape, y), rows.table, rows.positions,
                         heads_.queries + heads_.keys);
  const Var heads = rows.documents.empty() ? causal_attention(tape, qkv, heads_, rows.length, rows.first)
                                           : causal_attention(tape, qkv, heads_, rows.documents);
  return block.project(tape, thins_out(block, rows) ? gather_rows(tape, heads, rows.needed) : heads);
}

Var Llama::run_block(Tape& tape, const Var& all, const LlamaBlock& block, const Rows& rows) const {
  const Var x = thins_out(block, rows) ? gather_rows(tape, all, rows.needed) : all;
  const Var attended = attend(tape, block, norm(tape, all, block.norm1(), rows), rows);
  const ResidualNorm middle =
      residual_rms_norm(tape, x, attended, block.norm2(), options_.epsilon, rows.type);
  return residual_add(tape, middle.x, block.mlp(tape, middle.y));
}

Var Llama::hidden(Tape& tape, const TokenInput& input, const LanguageForward& how) const {
  const Rows rows = rows_of(tape.backend().memory(), input, how.type);
  Var x = embedding_->forward(tape, input.tokens);
  if (how.recompute) {
    // A block runs again during backward, after this call has returned: it takes along what it needs.
    for (const LlamaBlock& block : blocks_)
      x = tape.recompute(
          [this, &block, rows](Tape& inner, const Var& stream) {
            return run_block(inner, stream, block, rows);
          },
          x);
    return norm(tape, x, *norm_, rows);
  }
  Var y = norm(tape, x, blocks_.front().norm1(), rows);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (thins_out(blocks_[i], rows)) x = gather_rows(tape, x, rows.needed);
    const ResidualNorm middle = residual_rms_norm(tape, x, attend(tape, blocks_[i], y, rows),
                                                  blocks_[i].norm2(), options_.epsilon, rows.type);
    Parameter& next = i + 1 < blocks_.size() ? blocks_[i + 1].norm1() : *norm_;
    const ResidualNorm end =
        residual_rms_norm(tape, middle.x, blocks_[i].mlp(tape, middle.y), next, options_.epsilon, rows.type);
    x = end.x;
    y = end.y;
  }
  return y;
}

std::unique_ptr<DecodingState> Llama::make_state(const Backend& backend, std::int64_t sequences,
                                                 std::int64_t capacity, DType type) const {
  return std::make_unique<LlamaState>(backend.memory(), options_.layers, sequences, heads_, capacity, type);
}

Tensor Llama::advance(const Backend& backend, const Tensor& tokens, DecodingState& decoding) const {
  auto& state = dynamic_cast<LlamaState&>(decoding);
  const std::int64_t length = tokens.shape().back(), sequences = state.sequences();
  require_shape("Llama::advance: tokens", tokens, {sequences, length});
  state.require_room(length);
  Tape tape(backend, Tape::Mode::inference);
  Rows rows{.type = state.type(),
            .length = length,
            .positions = Tensor(backend.memory().host(), {tokens.elements()}, DType::i32),
            .first = {},
            .documents = {},
            .needed = {},
            .table = rotary_table(backend.memory(), state.capacity(), state.type())};
  for (std::int64_t r = 0; r < tokens.elements(); ++r)
    rows.positions.data<std::int32_t>()[r] =
        static_cast<std::int32_t>(state.lengths()[static_cast<std::size_t>(r / length)] + r % length);
  rows.positions = on_device(backend.memory(), rows.positions);

  Var x = embedding_->forward(tape, tokens), y = norm(tape, x, blocks_.front().norm1(), rows);
  for (int i = 0; i < options_.layers; ++i) {
    const LlamaBlock& block = blocks_[static_cast<std::size_t>(i)];
    const Var qkv = rotate(tape, block.queries_keys_values(tape, y), rows.table, rows.positions,
                           heads_.queries + heads_.keys);
    const Tensor keys = state.keys(i), values = state.values(i);
    const Tensor heads = tape.empty({x.value().rows(), heads_.queries * heads_.dimension}, rows.type);
    backend.attention().append(
        {.qkv = qkv.value(), .heads = heads_, .lengths = state.lengths(), .keys = keys, .values = values});
    backend.attention().cached_attention({.qkv = qkv.value(),
                                          .heads = heads_,
                                          .lengths = state.lengths(),
                                          .keys = keys,
                                          .values = values,
                                          .y = heads});
    const ResidualNorm middle = residual_rms_norm(tape, x, block.project(tape, Var(heads)), block.norm2(),
                                                  options_.epsilon, rows.type);
    Parameter& next = i + 1 < options_.layers ? blocks_[static_cast<std::size_t>(i) + 1].norm1() : *norm_;
    const ResidualNorm end =
        residual_rms_norm(tape, middle.x, block.mlp(tape, middle.y), next, options_.epsilon, rows.type);
    x = end.x;
    y = end.y;
  }
  for (std::int64_t b = 0; b < sequences; ++b) state.commit(b, length);
  return y.value();
}

double Llama::flops(std::int64_t sequences, std::int64_t length) const {
  const AttentionHeads heads = options_.attention_heads();
  const auto attended = static_cast<double>(heads.queries * heads.dimension);
  const auto wide = static_cast<double>(options_.channels), tokens = static_cast<double>(sequences * length);
  const double block = wide * (static_cast<double>(heads.channels()) + attended) +
                       3 * wide * static_cast<double>(options_.hidden_width());
  // Scores and weighed values, over half of the columns on average.
  const double attention = 2 * static_cast<double>(length) * attended;
  return tokens *
         (options_.layers * (2 * block + attention) + 2 * wide * static_cast<double>(options_.vocabulary));
}

}  // namespace bireme
