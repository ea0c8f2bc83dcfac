#pragma once

#include <cstdint>

namespace bireme::cpu {

/// The loops over pixels of the colour steps (core/image/color.h has the formulas). The three planes are r,
/// g, b; n pixels.

/// x[i] ← trunc(clamp₀²⁵⁵(base + factor · (x[i] - base)))
void blend_with(std::uint8_t* x, std::int64_t n, float base, float factor);
/// x[i] ← trunc(clamp₀²⁵⁵(base[i] + factor · (x[i] - base[i])))
void blend_with(std::uint8_t* x, const std::uint8_t* base, std::int64_t n, float factor);
void luma(const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, std::uint8_t* l,
          std::int64_t n);
std::int64_t sum(const std::uint8_t* x, std::int64_t n);
/// Adds `shift` (0 … 255) to the 8-bit hue.
void shift_hue(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::int64_t n, int shift);

}  // namespace bireme::cpu
