#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define BIREME_HOST_DEVICE __host__ __device__
#else
#define BIREME_HOST_DEVICE
#endif

namespace bireme {

/// The upper half of an fp32 number: 8 bits of exponent, 7 of mantissa. Storage only; arithmetic happens in
/// fp32.
struct bf16 {
  std::uint16_t bits;
};

BIREME_HOST_DEVICE inline float to_float(bf16 x) {
  const std::uint32_t wide = static_cast<std::uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}
BIREME_HOST_DEVICE inline float to_float(float x) { return x; }
BIREME_HOST_DEVICE inline double to_float(double x) { return x; }

/// Rounds to nearest, ties to even; NaN stays NaN.
BIREME_HOST_DEVICE inline bf16 to_bf16(float x) {
  std::uint32_t wide;
  std::memcpy(&wide, &x, sizeof wide);
  if ((wide & 0x7fffffffU) > 0x7f800000U) return {static_cast<std::uint16_t>((wide >> 16) | 0x40U)};
  return {static_cast<std::uint16_t>((wide + 0x7fffU + ((wide >> 16) & 1U)) >> 16)};
}

template <class T>
BIREME_HOST_DEVICE T from_float(float x);
template <>
BIREME_HOST_DEVICE inline float from_float<float>(float x) {
  return x;
}
template <>
BIREME_HOST_DEVICE inline bf16 from_float<bf16>(float x) {
  return to_bf16(x);
}

}  // namespace bireme
