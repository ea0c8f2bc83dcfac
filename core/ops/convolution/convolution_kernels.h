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

class ConvolutionKernels {
 public:
  virtual ~ConvolutionKernels() = default;
  virtual void extract_patches(const ExtractPatchesForward&) const = 0;
  virtual void extract_patches(const ExtractPatchesBackward&) const = 0;
};

}  // namespace bireme
