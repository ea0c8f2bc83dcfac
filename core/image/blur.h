#pragma once

#include <cstdint>
#include <vector>

#include "core/image/planes.h"

namespace bireme {

/// One of the three equal box blurs that stand for a Gaussian of deviation σ (Gwosdek et al. 2011, eqs. 7,
/// 11, 14), with fractional weights at its two ends, as Pillow computes it:
///     s = σ²/3,  L = √(12·s + 1),  l = ⌊(L-1)/2⌋,  e = (2l+1)·(l·(l+1) - 3·s) / (6·(s - (l+1)²)),  r = l + e
///     radius = ⌊r⌋,  inner = trunc(2²⁴ / (2r+1)),  edge = (2²⁴ - (2·radius+1)·inner) >> 1
struct BoxBlur {
  int radius;
  std::uint32_t inner, edge;
};
BoxBlur box_of_gaussian(float sigma);

/// Gaussian blur in place: three box blurs along lines, then three along columns, rounded to 8 bits after
/// each, pixels at the edge repeated. Bit-exact with Pillow; the cost does not depend on σ. Keeps its scratch
/// memory; one per thread.
class GaussianBlur {
 public:
  void operator()(Planes& planes, float sigma);

 private:
  std::vector<std::uint8_t> turned_, other_;
  std::vector<std::uint32_t> sums_;
};

}  // namespace bireme
