#include "core/image/resize.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "core/image/line_kernels.h"

namespace bireme {
namespace {

double kernel(double x, Interpolation interpolation) {
  x = std::abs(x);
  if (interpolation == Interpolation::bilinear) return x < 1 ? 1 - x : 0;
  constexpr double a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

/// Enough for all crops of small pictures; for large ones, about 2 MiB.
constexpr std::size_t kCachedSizes = 256;

}  // namespace

ResizeWeights resize_weights(int n_in, int n_out, Interpolation interpolation) {
  const double scale = static_cast<double>(n_in) / n_out, f = std::max(scale, 1.0);
  const double support = (interpolation == Interpolation::bicubic ? 2 : 1) * f;
  ResizeWeights result;
  result.taps = static_cast<int>(std::ceil(support)) * 2 + 1;
  result.weights.assign(static_cast<std::size_t>(n_out) * result.taps, 0);
  std::vector<double> exact(result.taps);
  for (int o = 0; o < n_out; ++o) {
    const double center = (o + 0.5) * scale;
    const int lo = std::max(static_cast<int>(center - support + 0.5), 0);
    const int hi = std::min(static_cast<int>(center + support + 0.5), n_in);
    double sum = 0;
    for (int x = lo; x < hi; ++x) sum += exact[x - lo] = kernel((x - center + 0.5) * (1 / f), interpolation);
    std::int32_t* weights = result.weights.data() + static_cast<std::size_t>(o) * result.taps;
    int first = hi, end = lo;
    for (int x = lo; x < hi; ++x) {
      const double scaled = exact[x - lo] / sum * (1 << 22);
      const auto weight = static_cast<std::int32_t>(scaled + std::copysign(0.5, scaled));
      if (weight == 0) continue;
      first = std::min(first, x);
      end = x + 1;
      weights[x - lo] = weight;
    }
    std::rotate(weights, weights + (first - lo), weights + (hi - lo));
    result.first.push_back(first);
    result.count.push_back(end - first);
  }
  return result;
}

const ResizeWeights& Resizer::weights(int n_in, int n_out, Interpolation interpolation) {
  const std::uint64_t key =
      (std::uint64_t(n_in) << 32 | std::uint64_t(n_out)) << 1 | static_cast<std::uint64_t>(interpolation);
  if (const auto found = cache_.find(key); found != cache_.end()) return found->second;
  if (cache_.size() >= kCachedSizes) cache_.clear();
  return cache_.emplace(key, resize_weights(n_in, n_out, interpolation)).first->second;
}

void Resizer::load(const Picture& picture) {
  width_ = picture.width;
  height_ = picture.height;
  channels_ = picture.channels;
  columns_.resize(picture.pixels.size());
  cpu::transpose_lines({.in = picture.pixels.data(),
                        .in_stride = std::ptrdiff_t{width_} * channels_,
                        .out = columns_.data(),
                        .out_stride = height_,
                        .height = height_,
                        .width = width_ * channels_});
}

void Resizer::crop(const Crop& crop, Planes& out) {
  const auto& [top, left, height, width] = crop.rectangle;
  assert(top >= 0 && left >= 0 && height > 0 && width > 0 && top + height <= height_ &&
         left + width <= width_);
  out.resize(crop.width, crop.height, channels_);
  narrow_.resize(static_cast<std::size_t>(crop.width) * height);
  upright_.resize(narrow_.size());
  for (int c = 0; c < channels_; ++c) {
    const ResizeWeights& across = weights(width, crop.width, crop.interpolation);
    const std::uint8_t* columns = columns_.data() + (std::ptrdiff_t{left} * channels_ + c) * height_ + top;
    std::uint8_t* narrow = narrow_.data() + (crop.flip ? std::ptrdiff_t{crop.width - 1} * height : 0);
    cpu::combine_lines({.in = columns,
                        .in_stride = std::ptrdiff_t{channels_} * height_,
                        .out = narrow,
                        .out_stride = crop.flip ? -height : height,
                        .length = height,
                        .lines = crop.width,
                        .first = across.first.data(),
                        .count = across.count.data(),
                        .weights = across.weights.data(),
                        .taps = across.taps});
    cpu::transpose_lines({.in = narrow_.data(),
                          .in_stride = height,
                          .out = upright_.data(),
                          .out_stride = crop.width,
                          .height = crop.width,
                          .width = height});
    const ResizeWeights& down = weights(height, crop.height, crop.interpolation);
    cpu::combine_lines({.in = upright_.data(),
                        .in_stride = crop.width,
                        .out = out.plane(c),
                        .out_stride = crop.width,
                        .length = crop.width,
                        .lines = crop.height,
                        .first = down.first.data(),
                        .count = down.count.data(),
                        .weights = down.weights.data(),
                        .taps = down.taps});
  }
}

Picture resize(const Picture& picture, int width, int height, Interpolation interpolation) {
  Resizer resizer;
  Planes out;
  resizer.load(picture);
  resizer.crop({.rectangle = {0, 0, picture.height, picture.width},
                .width = width,
                .height = height,
                .interpolation = interpolation},
               out);
  return to_picture(out);
}

}  // namespace bireme
