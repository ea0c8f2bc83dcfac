#include "core/image/blur.h"

#include <algorithm>
#include <cmath>

#include "core/image/line_kernels.h"

namespace bireme {
namespace {

constexpr int kPasses = 3;

/// Three passes across the lines of `values`; the result is in `other`.
void blur_lines(std::uint8_t* values, std::uint8_t* other, std::uint32_t* sums, int length, int lines,
                const BoxBlur& box) {
  for (int pass = 0; pass < kPasses; ++pass) {
    cpu::box_blur_lines({.in = values,
                         .out = other,
                         .sums = sums,
                         .length = length,
                         .lines = lines,
                         .radius = box.radius,
                         .inner = box.inner,
                         .edge = box.edge});
    std::swap(values, other);
  }
}

}  // namespace

// This file is compiled without contraction to fused multiply-adds: each operation below rounds to fp32.
BoxBlur box_of_gaussian(float sigma) {
  const float s = sigma * sigma / kPasses;
  const float length = static_cast<float>(std::sqrt(12.0 * s + 1.0));
  const float l = std::floor((length - 1.0f) / 2.0f);
  const float e = (2 * l + 1) * (l * (l + 1) - 3 * s) / (6 * (s - (l + 1) * (l + 1)));
  const float r = l + e;
  BoxBlur box;
  box.radius = static_cast<int>(r);
  box.inner = static_cast<std::uint32_t>(static_cast<float>(1 << 24) / (r * 2 + 1));
  box.edge = ((1u << 24) - (static_cast<std::uint32_t>(box.radius) * 2 + 1) * box.inner) / 2;
  return box;
}

void GaussianBlur::operator()(Planes& planes, float sigma) {
  const BoxBlur box = box_of_gaussian(sigma);
  const int width = planes.width, height = planes.height;
  turned_.resize(planes.area());
  other_.resize(planes.area());
  sums_.resize(std::max(width, height));
  for (int c = 0; c < planes.channels; ++c) {
    std::uint8_t* plane = planes.plane(c);
    cpu::transpose_lines({.in = plane,
                          .in_stride = width,
                          .out = turned_.data(),
                          .out_stride = height,
                          .height = height,
                          .width = width});
    blur_lines(turned_.data(), other_.data(), sums_.data(), height, width, box);
    cpu::transpose_lines({.in = other_.data(),
                          .in_stride = height,
                          .out = turned_.data(),
                          .out_stride = width,
                          .height = width,
                          .width = height});
    blur_lines(turned_.data(), plane, sums_.data(), width, height, box);
  }
}

}  // namespace bireme
