#include "core/image/color.h"

#include <algorithm>
#include <cmath>

#include "core/image/color_kernels.h"

namespace bireme {
namespace {

std::vector<std::uint8_t> luma_of(const Planes& planes) {
  std::vector<std::uint8_t> luma(planes.area());
  cpu::luma(planes.plane(0), planes.plane(1), planes.plane(2), luma.data(), planes.area());
  return luma;
}

}  // namespace

void adjust_brightness(Planes& planes, float factor) {
  cpu::blend_with(planes.values.data(), planes.area() * planes.channels, 0, factor);
}

void adjust_contrast(Planes& planes, float factor) {
  const std::int64_t sum = planes.channels == 3 ? cpu::sum(luma_of(planes).data(), planes.area())
                                                : cpu::sum(planes.plane(0), planes.area());
  const double mean = static_cast<double>(sum) / static_cast<double>(planes.area());
  cpu::blend_with(planes.values.data(), planes.area() * planes.channels,
                  static_cast<float>(std::floor(mean + 0.5)), factor);
}

void adjust_saturation(Planes& planes, float factor) {
  if (planes.channels != 3) return;
  const std::vector<std::uint8_t> luma = luma_of(planes);
  for (int c = 0; c < 3; ++c) cpu::blend_with(planes.plane(c), luma.data(), planes.area(), factor);
}

void shift_hue(Planes& planes, double shift) {
  if (planes.channels != 3) return;
  const int steps = static_cast<int>(shift * 255) & 255;  // truncated towards 0, then modulo 256
  cpu::shift_hue(planes.plane(0), planes.plane(1), planes.plane(2), planes.area(), steps);
}

void to_grey(Planes& planes) {
  if (planes.channels != 3) return;
  const std::vector<std::uint8_t> luma = luma_of(planes);
  for (int c = 0; c < 3; ++c) std::copy(luma.begin(), luma.end(), planes.plane(c));
}

void solarize(Planes& planes, int threshold) {
  for (std::uint8_t& v : planes.values) v = static_cast<std::uint8_t>(v < threshold ? v : 255 - v);
}

void jitter(Planes& planes, const ColorJitter& factors) {
  for (const int step : factors.order) {
    switch (step) {
      case 0: adjust_brightness(planes, factors.brightness); break;
      case 1: adjust_contrast(planes, factors.contrast); break;
      case 2: adjust_saturation(planes, factors.saturation); break;
      default: shift_hue(planes, factors.hue);
    }
  }
}

}  // namespace bireme
