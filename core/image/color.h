#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "core/image/planes.h"

namespace bireme {

/// Colour steps, in place, bit-exact with Pillow. With luma L = (19595·R + 38470·G + 7471·B + 32768) >> 16,
/// and L = v on one-channel pictures,
///     blend(x₀, x, α) = trunc(clamp₀²⁵⁵(x₀ + α·(x - x₀))), in fp32.
/// Saturation, hue and grey leave one-channel pictures as they are.

/// x ← blend(0, x, factor)
void adjust_brightness(Planes& planes, float factor);
/// x ← blend(m, x, factor), m = ⌊mean of L over the picture + ½⌋
void adjust_contrast(Planes& planes, float factor);
/// x ← blend(L of the pixel, x, factor)
void adjust_saturation(Planes& planes, float factor);
/// H ← (H + trunc(255·shift)) mod 256 between conversions to and from 8-bit HSV; not the identity for a shift
/// of 0.
void shift_hue(Planes& planes, double shift);
/// R = G = B = L
void to_grey(Planes& planes);
/// v ← v < threshold ? v : 255 - v
void solarize(Planes& planes, int threshold = 128);

/// The four adjustments in the given order: 0 brightness, 1 contrast, 2 saturation, 3 hue.
struct ColorJitter {
  std::array<int, 4> order = {0, 1, 2, 3};
  float brightness = 1, contrast = 1, saturation = 1;  ///< factors
  double hue = 0;                                      ///< shift as a share of the full turn
};
void jitter(Planes& planes, const ColorJitter& factors);

}  // namespace bireme
