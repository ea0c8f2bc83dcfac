#pragma once

#include "core/autograd/tape.h"

namespace bireme {

/// y[(picture, i, j), (c, u, v)] = images[picture, c, i·p + u, j·p + v]
struct ExtractPatchesForward {
  const Tensor& images;  // [n, C, H, W], fp32 (fp64)
  std::int64_t patch;    // p
  const Tensor& y;       // [n·⌊H/p⌋·⌊W/p⌋, C·p²], compute type
};
/// The inverse placement; pixels that no patch holds get 0.
struct ExtractPatchesBackward {
  const Tensor& dy;
  std::int64_t patch;
  Target dimages;
};

struct CausalConvolutionForward {
  const Tensor &x, &weight, &bias;  // [B·T, C], [C, 1, K], [C]
  const Tensor& before;             // [B, K - 1, C], or undefined
  const Tensor& starts;             // [B, T] u8, or undefined
  std::int64_t sequences;           // B
  bool silu;
  const Tensor& y;
};
/// With p = dy ∘ act'(y before act):  dx[t] = Σ_j W[j] ∘ p[t + K - 1 - j],  dW[j] = Σ_t p[t] ∘ x[t - K + 1 +
/// j], dbias = Σ_t p[t].
struct CausalConvolutionBackward {
  const Tensor &dy, &x, &weight, &bias, &before, &starts;
  std::int64_t sequences;
  bool silu;
  Target dx, dweight, dbias;
  Target dbefore = {};  // [B, K - 1, C], of what came before x
};

class ConvolutionKernels {
 public:
  virtual ~ConvolutionKernels() = default;
  virtual void extract_patches(const ExtractPatchesForward&) const = 0;
  virtual void extract_patches(const ExtractPatchesBackward&) const = 0;
  virtual void causal_convolution(const CausalConvolutionForward&) const = 0;
  virtual void causal_convolution(const CausalConvolutionBackward&) const = 0;
};

}  // namespace bireme
