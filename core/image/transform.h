#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/image/planes.h"
#include "core/image/resize.h"
#include "core/tensor/random.h"

namespace bireme {

/// A share of a picture's area, drawn uniformly between the two.
struct AreaRange {
  double low, high;
};

struct Size {
  int height, width;
  friend bool operator==(const Size&, const Size&) = default;
};

/// Size of a random resized crop (torchvision's, as DINO uses it) of the given share of the area and
/// logarithm of the aspect ratio r = width / height:  w = round(√(a·r)),  h = round(√(a/r)),  a = H·W·share,
/// ties to even. It may not fit the picture; then another attempt is due.
Size crop_size(Size picture, double share, double log_ratio);

/// What is taken when ten attempts did not fit: the largest centred rectangle with an aspect ratio in 3/4 …
/// 4/3.
Rectangle fallback_crop(Size picture);

/// Rectangle of a random resized crop: up to ten draws of a share in `area` and log ratio in log ¾ … log 4⁄3.
Rectangle random_crop(Size picture, const AreaRange& area, RandomStream& random);

/// 8-bit values to what a model reads: (v/255 - mean[c]) / std[c] in fp32, each of 256 values computed once.
class Normalization {
 public:
  /// @throws Error (usage) when mean and std differ in length, are empty, or a std is not positive
  Normalization(const std::vector<float>& mean, const std::vector<float>& std);

  int channels() const { return static_cast<int>(tables_.size()); }
  /// @param out  [C, H, W]; the planes must have channels() channels
  void operator()(const Planes& planes, float* out) const;
  /// One channel's values alone, of as many pixels as there are; `out` takes as many.
  void normalize_plane(int channel, std::span<const std::uint8_t> values, float* out) const;

 private:
  std::vector<std::array<float, 256>> tables_;
};

/// The picture as features and k-NN see it: shorter side resized (bicubic; the longer side is truncated) to
/// ⌊size·256/224⌋, and the size × size pixels in its middle (offsets rounded, ties to even). A picture of the
/// wanted size already is taken as it is. One per thread.
class EvaluationCrop {
 public:
  explicit EvaluationCrop(int size) : size_(size), shorter_side_(size * 256 / 224) {}
  EvaluationCrop(int size, int shorter_side) : size_(size), shorter_side_(shorter_side) {}

  const Planes& operator()(const Picture& picture);

 private:
  int size_, shorter_side_;
  Resizer resizer_;
  Planes resized_, cropped_;
};

}  // namespace bireme
