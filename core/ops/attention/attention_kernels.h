#pragma once

#include <span>

#include "core/ops/attention/attention.h"
#include "core/ops/attention/causal_attention.h"
#include "core/ops/sequences.h"

namespace bireme {

struct AttentionForward {
  const Tensor& qkv;  // [R, 3·H·d]
  int heads;
  const Segments& segments;
  const Tensor& y;        // [R, H·d]
  const Tensor& log_sum;  // [R, H] fp32 (fp64): log of the sum of exp(scores) of each row, for the way back;
                          // or undefined
};

/// P = exp(scores - log_sum);  dv = Pᵀ·dy;  dP = dy·vᵀ;  δ = rowsum(dy ∘ y);  dS = P ∘ (dP - δ);  dq =
/// dS·k/√d;  dk = dSᵀ·q/√d.
struct AttentionBackward {
  const Tensor &dy, &qkv, &y, &log_sum;
  int heads;
  const Segments& segments;
  Target dqkv;  // [R, 3·H·d]
};

struct AttentionWeights {
  const Tensor& qkv;
  int heads;
  const Segment& segment;
  const Tensor& weights;  // [count, H, length, length] fp32
};

/// Row t of a sequence sees its columns first[t] … t. Where documents are given, they stand for the
/// sequences: a row sees the rows of its branch up to itself, and those of the trunk.
struct CausalAttentionForward {
  const Tensor& qkv;  // [B·T, (H + 2·G)·d]
  AttentionHeads heads;
  std::int64_t length;                        // T
  const Tensor& first;                        // [B·T] i32, not falling within a sequence; or undefined for 0
  const Tensor& y;                            // [B·T, H·d]
  const Tensor& log_sum;                      // [B·T, H] fp32 (fp64), for the way back; or undefined
  std::span<const Branching> documents = {};  // of all rows
};
/// As AttentionBackward; dk and dv of a head are sums over its group of query heads.
struct CausalAttentionBackward {
  const Tensor &dy, &qkv, &y, &log_sum;
  AttentionHeads heads;
  std::int64_t length;
  const Tensor& first;
  Target dqkv;
  std::span<const Branching> documents = {};
};

/// Keys and values of n more tokens of each sequence into columns lengths[b] … lengths[b] + n - 1.
struct AppendToCache {
  const Tensor& qkv;  // [B·n, (H + 2·G)·d]
  AttentionHeads heads;
  std::span<const std::int64_t> lengths;  // of each sequence
  const Tensor &keys, &values;            // [B, G, capacity, d]
};
/// Row i of the n of sequence b sees columns 0 … lengths[b] + i, which hold its own key and value already.
struct CachedAttention {
  const Tensor& qkv;
  AttentionHeads heads;
  std::span<const std::int64_t> lengths;  // before the n tokens
  const Tensor &keys, &values;
  const Tensor& y;  // [B·n, H·d]
};

class AttentionKernels {
 public:
  virtual ~AttentionKernels() = default;
  virtual void attention(const AttentionForward&) const = 0;
  virtual void attention(const AttentionBackward&) const = 0;
  virtual void weights(const AttentionWeights&) const = 0;
  virtual void causal_attention(const CausalAttentionForward&) const = 0;
  virtual void causal_attention(const CausalAttentionBackward&) const = 0;
  virtual void append(const AppendToCache&) const = 0;
  virtual void cached_attention(const CachedAttention&) const = 0;
};

}  // namespace bireme
