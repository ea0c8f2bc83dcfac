#pragma once

#include <span>
#include <vector>

#include "core/ops/attention/causal_attention.h"
#include "models/language_model.h"

namespace bireme {

/// Keys (rotated) and values of what each sequence has read: one block of memory, laid out as
/// [layer][keys, values][B][G][capacity][d]. Columns behind a sequence's length are scratch.
class LlamaState final : public DecodingState {
 public:
  /// @param heads  held by this rank
  LlamaState(Memory& memory, int layers, std::int64_t sequences, const AttentionHeads& heads,
             std::int64_t capacity, DType type);

  std::int64_t sequences() const override { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t position() const override { return lengths_.front(); }
  std::int64_t bytes() const override { return static_cast<std::int64_t>(cache_.bytes()); }
  std::unique_ptr<DecodingState> clone() const override;

  DType type() const { return cache_.dtype(); }
  std::int64_t capacity() const { return cache_.shape()[4]; }
  std::span<const std::int64_t> lengths() const { return lengths_; }
  Tensor keys(int layer) const { return plane(layer, 0); }    ///< [B, G, capacity, d]
  Tensor values(int layer) const { return plane(layer, 1); }  ///< [B, G, capacity, d]

  /// Takes n more columns, written already, for part of what sequence b has read.
  void commit(std::int64_t b, std::int64_t n) { lengths_[static_cast<std::size_t>(b)] += n; }
  /// Forgets what sequence b has read from column n on.
  void truncate(std::int64_t b, std::int64_t n);
  /// @throws Error (usage) naming the capacity when no n more columns fit
  void require_room(std::int64_t n) const;

 private:
  LlamaState(const LlamaState& other);
  Tensor plane(int layer, int which) const;

  Memory& memory_;
  Tensor cache_;  // [layers, 2, B, G, capacity, d]
  std::vector<std::int64_t> lengths_;
};

}  // namespace bireme
