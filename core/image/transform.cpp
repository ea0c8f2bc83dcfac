#include "core/image/transform.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "core/base/error.h"

namespace bireme {
namespace {

constexpr double kLowestRatio = 3.0 / 4.0, kHighestRatio = 4.0 / 3.0;

/// Ties to even, the default rounding of the hardware.
int round_even(double x) { return static_cast<int>(std::nearbyint(x)); }

}  // namespace

Size crop_size(Size picture, double share, double log_ratio) {
  const double area = static_cast<double>(picture.height) * picture.width * share,
               ratio = std::exp(log_ratio);
  return {.height = round_even(std::sqrt(area / ratio)), .width = round_even(std::sqrt(area * ratio))};
}

Rectangle fallback_crop(Size picture) {
  const double ratio = static_cast<double>(picture.width) / picture.height;
  int width = picture.width, height = picture.height;
  if (ratio < kLowestRatio) height = std::max(round_even(width / kLowestRatio), 1);
  if (ratio > kHighestRatio) width = std::max(round_even(height * kHighestRatio), 1);
  return {.top = (picture.height - height) / 2,
          .left = (picture.width - width) / 2,
          .height = height,
          .width = width};
}

Rectangle random_crop(Size picture, const AreaRange& area, RandomStream& random) {
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double share = random.uniform(area.low, area.high);
    const double log_ratio = random.uniform(std::log(kLowestRatio), std::log(kHighestRatio));
    const Size size = crop_size(picture, share, log_ratio);
    if (size.width <= 0 || size.width > picture.width || size.height <= 0 || size.height > picture.height)
      continue;
    const auto top = static_cast<int>(random.below(picture.height - size.height + 1));
    const auto left = static_cast<int>(random.below(picture.width - size.width + 1));
    return {.top = top, .left = left, .height = size.height, .width = size.width};
  }
  return fallback_crop(picture);
}

Normalization::Normalization(const std::vector<float>& mean, const std::vector<float>& std) {
  const std::string where = "data.mean and data.std";
  if (mean.empty() || mean.size() != std.size())
    throw Error(ErrorKind::usage,
                fmt::format("{} means, but {} standard deviations", mean.size(), std.size()), where,
                "give one of each for every channel");
  for (std::size_t c = 0; c < mean.size(); ++c) {
    if (!(std[c] > 0) || !std::isfinite(std[c]) || !std::isfinite(mean[c]))
      throw Error(ErrorKind::usage,
                  fmt::format("channel {} has mean {} and standard deviation {}", c, mean[c], std[c]), where,
                  "give finite numbers, and standard deviations above 0");
    std::array<float, 256>& table = tables_.emplace_back();
    for (int v = 0; v < 256; ++v) table[v] = (static_cast<float>(v) / 255.0f - mean[c]) / std[c];
  }
}

void Normalization::operator()(const Planes& planes, float* out) const {
  assert(planes.channels == channels());
  const auto area = static_cast<std::size_t>(planes.area());
  for (int c = 0; c < channels(); ++c) normalize_plane(c, {planes.plane(c), area}, out + c * planes.area());
}

void Normalization::normalize_plane(int channel, std::span<const std::uint8_t> values, float* out) const {
  const std::array<float, 256>& table = tables_[static_cast<std::size_t>(channel)];
  for (const std::uint8_t value : values) *out++ = table[value];
}

const Planes& EvaluationCrop::operator()(const Picture& picture) {
  resizer_.load(picture);
  const Rectangle whole{0, 0, picture.height, picture.width};
  if (picture.width == size_ && picture.height == size_) {
    resizer_.crop({.rectangle = whole, .width = size_, .height = size_}, cropped_);
    return cropped_;
  }
  const std::int64_t shorter = std::min(picture.width, picture.height),
                     longer = std::max(picture.width, picture.height);
  const auto longer_side = static_cast<int>(shorter_side_ * longer / shorter);
  const bool is_wide = picture.width > picture.height;
  const int width = is_wide ? longer_side : shorter_side_, height = is_wide ? shorter_side_ : longer_side;
  resizer_.crop({.rectangle = whole, .width = width, .height = height}, resized_);
  const int left = round_even((width - size_) / 2.0), top = round_even((height - size_) / 2.0);
  cropped_.resize(size_, size_, picture.channels);
  for (int c = 0; c < picture.channels; ++c)
    for (int y = 0; y < size_; ++y)
      std::copy_n(resized_.plane(c) + std::int64_t{top + y} * width + left, size_,
                  cropped_.plane(c) + std::int64_t{y} * size_);
  return cropped_;
}

}  // namespace bireme
