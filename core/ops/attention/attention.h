#pragma once

#include <vector>

#include "core/autograd/tape.h"

namespace bireme {

/// Sequences packed without padding: `count` sequences of `length` rows each, runs one after another.
struct Segment {
  std::int64_t count = 0;
  std::int64_t length = 0;
};
using Segments = std::vector<Segment>;

/// Total rows of all segments.
std::int64_t rows_of(const Segments& segments);

/// Multi-head softmax attention within each sequence, no mask (Vaswani et al. 2017, eq. 1):
///     A = softmax(q · kᵀ / √d),   y = concat over heads of A · v
/// Scores exist for one (sequence, head) at a time; the way back rebuilds them from the kept row log-sum-exp.
/// @param qkv    [R, 3·H·d]: per row q, k, v, each head-major; R = rows_of(segments); fp32, bf16 (sums in
/// fp32) or fp64
/// @param heads  H, heads held by this rank
/// @return       [R, H·d], type of qkv
Var attention(Tape& tape, const Var& qkv, int heads, const Segments& segments);

/// The softmax weights themselves, for pictures: [count, H, length, length] fp32 of a single segment. No
/// gradient.
Tensor attention_weights(const Backend& backend, const Tensor& qkv, int heads, const Segment& segment);

}  // namespace bireme
