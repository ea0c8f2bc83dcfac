#pragma once

#include <cstddef>
#include <cstdint>

namespace bireme::cpu {

/// The loops over whole lines of pixels that resizing and blurring consist of. Integer arithmetic throughout:
/// the results do not depend on the instruction set, which is chosen at run time.

/// Weighted sums of lines, the one step of a separable resize:
///     out[o, i] = clamp₀²⁵⁵((2²¹ + Σ over t < count[o] of weights[o·taps + t] · in[first[o] + t, i]) >> 22)
struct CombineLines {
  const std::uint8_t* in;
  std::ptrdiff_t in_stride;
  std::uint8_t* out;
  std::ptrdiff_t out_stride;  // may be negative: lines written in reverse order
  int length;                 // entries of a line, i
  int lines;                  // lines to write, o
  const std::int32_t* first;
  const std::int32_t* count;
  const std::int32_t* weights;
  int taps;
};
void combine_lines(const CombineLines& a);

/// One box blur across lines, y the index of the line, clamped to 0 … lines-1 (the outermost lines repeat):
///     out[y, i] = (inner · Σ over |j| ≤ radius of in[y+j, i] + edge · (in[y-radius-1, i] + in[y+radius+1,
///     i]) + 2²³) >> 24
/// The running sum makes the cost independent of the radius.
struct BoxBlurLines {
  const std::uint8_t* in;
  std::uint8_t* out;    // not in
  std::uint32_t* sums;  // [length], scratch
  int length, lines;    // lines stand one after another
  int radius;
  std::uint32_t inner, edge;
};
void box_blur_lines(const BoxBlurLines& a);

/// out[x · out_stride + y] = in[y · in_stride + x] for y < height, x < width.
struct TransposeLines {
  const std::uint8_t* in;
  std::ptrdiff_t in_stride;
  std::uint8_t* out;
  std::ptrdiff_t out_stride;
  int height, width;
};
void transpose_lines(const TransposeLines& a);

}  // namespace bireme::cpu
