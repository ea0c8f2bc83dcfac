#include "core/image/color_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/image/color_kernels.cpp"
#include <hwy/foreach_target.h>  // compiles the part below once for each instruction set
#include <hwy/highway.h>

#include <algorithm>

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu {
namespace HWY_NAMESPACE {

// Plain loops without branches, which the compiler vectorises for each instruction set. The file is compiled
// without contraction to fused multiply-adds, so that every instruction set rounds alike.

HWY_INLINE std::uint8_t blend(float base, float x, float factor) {
  const float y = base + factor * (x - base);
  return static_cast<std::uint8_t>(static_cast<int>(std::min(std::max(y, 0.0f), 255.0f)));
}

void BlendConstant(std::uint8_t* x, std::int64_t n, float base, float factor) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = blend(base, x[i], factor);
}

void BlendPlane(std::uint8_t* HWY_RESTRICT x, const std::uint8_t* HWY_RESTRICT base, std::int64_t n,
                float factor) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = blend(base[i], x[i], factor);
}

void Luma(const std::uint8_t* HWY_RESTRICT r, const std::uint8_t* HWY_RESTRICT g,
          const std::uint8_t* HWY_RESTRICT b, std::uint8_t* HWY_RESTRICT l, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i)
    l[i] = static_cast<std::uint8_t>((19595 * r[i] + 38470 * g[i] + 7471 * b[i] + 32768) >> 16);
}

std::int64_t Sum(const std::uint8_t* x, std::int64_t n) {
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

/// H and S of one pixel, 8 bits each. A grey pixel gets 0 and 0: its differences are 0, and are divided by 1.
HWY_INLINE void hue_and_saturation(int r, int g, int b, int& hue, int& saturation) {
  const int value = std::max(std::max(r, g), b), least = std::min(std::min(r, g), b);
  const float range = static_cast<float>(std::max(value - least, 1));
  const float rc = static_cast<float>(value - r) / range;
  const float gc = static_cast<float>(value - g) / range;
  const float bc = static_cast<float>(value - b) / range;
  const bool red = r == value, green = g == value;
  const double base = green ? 2.0 : 4.0, plus = green ? rc : gc, minus = green ? bc : rc;
  const float h = red ? bc - gc : static_cast<float>(base + plus - minus);
  const double turns = h / 6.0 + 1.0;  // 5/6 … 11/6
  hue = static_cast<int>(static_cast<float>(turns >= 1.0 ? turns - 1.0 : turns) * 255.0);
  saturation =
      static_cast<int>(static_cast<float>(value - least) / static_cast<float>(std::max(value, 1)) * 255.0);
}

void ShiftHue(std::uint8_t* HWY_RESTRICT r, std::uint8_t* HWY_RESTRICT g, std::uint8_t* HWY_RESTRICT b,
              std::int64_t n, int shift) {
  for (std::int64_t i = 0; i < n; ++i) {
    int hue, saturation;
    hue_and_saturation(r[i], g[i], b[i], hue, saturation);
    hue = (hue + shift) & 255;
    const int value = std::max(std::max(r[i], g[i]), b[i]);
    const double v = value;
    const double x = hue * 6.0 / 255.0;
    const int sector = static_cast<int>(x);
    const float f = static_cast<float>(x - sector), s = static_cast<float>(saturation) / 255.0f;
    // + ½ and truncation is rounding half away from zero here: checked against std::round for all 2²⁴ (H, S,
    // V).
    const int p = static_cast<int>(v * (1.0 - s) + 0.5);
    const int q = static_cast<int>(v * (1.0 - s * f) + 0.5);
    const int t = static_cast<int>(v * (1.0 - s * (1.0 - static_cast<double>(f))) + 0.5);
    // Sector 6, which hue 255 reaches, is sector 0 again. A saturation of 0 gives p = q = t = V.
    const int sextant = sector == 6 ? 0 : sector;
    r[i] = static_cast<std::uint8_t>(sextant == 0 || sextant == 5 ? value
                                     : sextant == 1               ? q
                                     : sextant == 4               ? t
                                                                  : p);
    g[i] = static_cast<std::uint8_t>(sextant == 1 || sextant == 2 ? value
                                     : sextant == 3               ? q
                                     : sextant == 0               ? t
                                                                  : p);
    b[i] = static_cast<std::uint8_t>(sextant == 3 || sextant == 4 ? value
                                     : sextant == 5               ? q
                                     : sextant == 2               ? t
                                                                  : p);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace bireme::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(BlendConstant);
HWY_EXPORT(BlendPlane);
HWY_EXPORT(Luma);
HWY_EXPORT(Sum);
HWY_EXPORT(ShiftHue);

void blend_with(std::uint8_t* x, std::int64_t n, float base, float factor) {
  HWY_DYNAMIC_DISPATCH(BlendConstant)(x, n, base, factor);
}
void blend_with(std::uint8_t* x, const std::uint8_t* base, std::int64_t n, float factor) {
  HWY_DYNAMIC_DISPATCH(BlendPlane)(x, base, n, factor);
}
void luma(const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, std::uint8_t* l,
          std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(Luma)(r, g, b, l, n);
}
std::int64_t sum(const std::uint8_t* x, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(Sum)(x, n); }
void shift_hue(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::int64_t n, int shift) {
  HWY_DYNAMIC_DISPATCH(ShiftHue)(r, g, b, n, shift);
}

}  // namespace bireme::cpu
#endif
