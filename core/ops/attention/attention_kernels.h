#pragma once

#include "core/ops/attention/attention.h"

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

class AttentionKernels {
 public:
  virtual ~AttentionKernels() = default;
  virtual void attention(const AttentionForward&) const = 0;
  virtual void attention(const AttentionBackward&) const = 0;
  virtual void weights(const AttentionWeights&) const = 0;
};

}  // namespace bireme
