#include "core/image/line_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/image/line_kernels.cpp"
#include <hwy/foreach_target.h>  // compiles the part below once for each instruction set
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu {
namespace HWY_NAMESPACE {

// The loops are plain: inside this namespace the compiler vectorises them for each instruction set.

constexpr int kBlock = 64;  // sums of a block stay in registers: 8 of 256 bits

/// One block of one output line; `length` is a constant after inlining, except in the last block of a line.
HWY_INLINE void combine_block(const std::uint8_t* in, std::ptrdiff_t stride, const std::int32_t* weights,
                              int count, std::uint8_t* out, int length) {
  std::int32_t sums[kBlock];
  for (int i = 0; i < length; ++i) sums[i] = 1 << 21;
  for (int t = 0; t < count; ++t, in += stride)
    for (int i = 0; i < length; ++i) sums[i] += weights[t] * in[i];
  for (int i = 0; i < length; ++i)
    out[i] = static_cast<std::uint8_t>(std::min(std::max(sums[i] >> 22, 0), 255));
}

void CombineLines(const cpu::CombineLines& a) {
  for (int o = 0; o < a.lines; ++o) {
    const std::uint8_t* in = a.in + a.first[o] * a.in_stride;
    std::uint8_t* out = a.out + o * a.out_stride;
    const std::int32_t* weights = a.weights + std::ptrdiff_t{o} * a.taps;
    int i = 0;
    for (; i + kBlock <= a.length; i += kBlock)
      combine_block(in + i, a.in_stride, weights, a.count[o], out + i, kBlock);
    for (; i + 16 <= a.length; i += 16) combine_block(in + i, a.in_stride, weights, a.count[o], out + i, 16);
    if (i < a.length) combine_block(in + i, a.in_stride, weights, a.count[o], out + i, a.length - i);
  }
}

void BoxBlurLines(const cpu::BoxBlurLines& a) {
  const auto line = [&a](int y) { return a.in + std::ptrdiff_t{std::clamp(y, 0, a.lines - 1)} * a.length; };
  const int length = a.length;
  std::uint32_t* HWY_RESTRICT sums = a.sums;
  const std::uint32_t inner = a.inner, edge = a.edge;
  std::fill_n(sums, length, 0u);
  for (int j = -a.radius; j <= a.radius; ++j) {
    const std::uint8_t* in = line(j);
    for (int i = 0; i < length; ++i) sums[i] += in[i];
  }
  for (int y = 0; y < a.lines; ++y) {
    const std::uint8_t* before = line(y - a.radius - 1);
    const std::uint8_t* first = line(y - a.radius);
    const std::uint8_t* after = line(y + a.radius + 1);
    std::uint8_t* HWY_RESTRICT out = a.out + std::ptrdiff_t{y} * length;
    for (int i = 0; i < length; ++i) {
      const std::uint32_t sum = sums[i];
      const std::uint32_t outer = static_cast<std::uint32_t>(before[i]) + after[i];
      out[i] = static_cast<std::uint8_t>((inner * sum + edge * outer + (1u << 23)) >> 24);
      sums[i] = sum + after[i] - first[i];
    }
  }
}

/// 8 × 8 bytes as eight 64-bit numbers: swaps the off-diagonal blocks of 4, then of 2, then of 1.
HWY_INLINE void transpose_tile(const std::uint8_t* in, std::ptrdiff_t in_stride, std::uint8_t* out,
                               std::ptrdiff_t out_stride) {
  std::uint64_t rows[8];
  for (int y = 0; y < 8; ++y) std::memcpy(&rows[y], in + y * in_stride, 8);
  const auto swap = [&rows](int a, int b, int bits, std::uint64_t mask) {
    const std::uint64_t difference = ((rows[a] >> bits) ^ rows[b]) & mask;
    rows[b] ^= difference;
    rows[a] ^= difference << bits;
  };
  for (int y = 0; y < 4; ++y) swap(y, y + 4, 32, 0x00000000FFFFFFFFull);
  for (const int y : {0, 1, 4, 5}) swap(y, y + 2, 16, 0x0000FFFF0000FFFFull);
  for (const int y : {0, 2, 4, 6}) swap(y, y + 1, 8, 0x00FF00FF00FF00FFull);
  for (int x = 0; x < 8; ++x) std::memcpy(out + x * out_stride, &rows[x], 8);
}

void TransposeLines(const cpu::TransposeLines& a) {
  const int height = a.height & ~7, width = a.width & ~7;
  for (int y = 0; y < height; y += 8)
    for (int x = 0; x < width; x += 8)
      transpose_tile(a.in + y * a.in_stride + x, a.in_stride, a.out + x * a.out_stride + y, a.out_stride);
  for (int y = 0; y < a.height; ++y)
    for (int x = y < height ? width : 0; x < a.width; ++x)
      a.out[x * a.out_stride + y] = a.in[y * a.in_stride + x];
}

}  // namespace HWY_NAMESPACE
}  // namespace bireme::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(CombineLines);
HWY_EXPORT(BoxBlurLines);
HWY_EXPORT(TransposeLines);

void combine_lines(const CombineLines& a) { HWY_DYNAMIC_DISPATCH(CombineLines)(a); }
void box_blur_lines(const BoxBlurLines& a) { HWY_DYNAMIC_DISPATCH(BoxBlurLines)(a); }
void transpose_lines(const TransposeLines& a) { HWY_DYNAMIC_DISPATCH(TransposeLines)(a); }

}  // namespace bireme::cpu
#endif
