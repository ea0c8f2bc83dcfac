#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/image/planes.h"

namespace bireme {

enum class Interpolation : std::uint8_t { bilinear, bicubic };

/// The weights of one pass of a resize from n_in to n_out entries, bit-exact with Pillow 9 … 12:
///     scale = n_in / n_out,  f = max(scale, 1),  support = 2·f (bicubic) or f (bilinear),  centre = (o +
///     ½)·scale lo = max(⌊centre - support + ½⌋, 0),  hi = min(⌊centre + support + ½⌋, n_in) w[x] = k((x -
///     centre + ½) / f) for x = lo … hi-1, divided by their sum, times 2²², rounded half away from zero
/// with k the triangle 1 - |x|, or the cubic of Keys 1981 with a = -½. Weights of 0 at the ends are left out.
struct ResizeWeights {
  int taps = 0;                       ///< room of one output in `weights`
  std::vector<std::int32_t> first;    ///< [n_out] the first input that counts
  std::vector<std::int32_t> count;    ///< [n_out] how many count
  std::vector<std::int32_t> weights;  ///< [n_out, taps]
};
ResizeWeights resize_weights(int n_in, int n_out, Interpolation interpolation);

/// Cuts rectangles out of one picture and resizes them, in two passes: all lines horizontally, rounded to 8
/// bits, then vertically. Taps never reach outside the rectangle. Keeps the picture turned on its side, since
/// a pass over whole lines is the fast one, and the weights of the sizes that it has met. One per thread.
class Resizer {
 public:
  /// The picture that the next crops come from; it is copied.
  void load(const Picture& picture);

  /// Writes the rectangle, resized to width × height and optionally mirrored, to `out`. The rectangle must
  /// lie inside the loaded picture.
  struct Crop {
    Rectangle rectangle;
    int width, height;
    Interpolation interpolation = Interpolation::bicubic;
    bool flip = false;  ///< left and right exchanged
  };
  void crop(const Crop& crop, Planes& out);

 private:
  const ResizeWeights& weights(int n_in, int n_out, Interpolation interpolation);

  int width_ = 0, height_ = 0, channels_ = 0;
  std::vector<std::uint8_t> columns_;  // [width, C, height]
  std::vector<std::uint8_t> narrow_;   // [out width, rectangle height], after the horizontal pass
  std::vector<std::uint8_t> upright_;  // [rectangle height, out width]
  std::unordered_map<std::uint64_t, ResizeWeights> cache_;
};

/// The whole picture at another size.
Picture resize(const Picture& picture, int width, int height,
               Interpolation interpolation = Interpolation::bicubic);

}  // namespace bireme
