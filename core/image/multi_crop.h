#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/image/blur.h"
#include "core/image/color.h"
#include "core/image/resize.h"
#include "core/image/transform.h"

namespace bireme {

/// Which crops DINO takes of a picture and how it changes them. Defaults are those of the published code
/// (Caron et al. 2021) for ImageNet; small pictures want milder crops and no blur.
struct MultiCropOptions {
  int global_crops = 2, global_size = 224;
  int local_crops = 8, local_size = 96;
  AreaRange global_scale{0.4, 1.0}, local_scale{0.05, 0.4};
  double flip = 0.5;    ///< probability, as are the next and `greyscale`, `blur…`, `solarize`
  double jitter = 0.8;  ///< of the four adjustments together
  /// Strengths: factors are drawn from 1 ± strength (at least 0), the hue shift from ± hue.
  double brightness = 0.4, contrast = 0.4, saturation = 0.2, hue = 0.1;
  double greyscale = 0.2;
  double blur_first_global = 1.0, blur_other_globals = 0.1, blur_locals = 0.5;  ///< 0 switches it off
  double blur_lowest_radius = 0.1, blur_highest_radius = 2.0;
  double solarize = 0.2;  ///< of the globals but the first
  std::vector<float> mean{0.485f, 0.456f, 0.406f}, std{0.229f, 0.224f, 0.225f};

  int crops() const { return global_crops + local_crops; }
  int side(int crop) const { return crop < global_crops ? global_size : local_size; }
};

/// Checks the options against pictures of the given size (the smallest of the dataset) and channels.
/// @throws Error (usage) naming the key, the value and what would do: a crop larger than the picture's
/// shorter side, a
///         probability outside 0 … 1, an empty area range, no global crop, as many means as channels are
///         missing
void validate(const MultiCropOptions& options, int width, int height, int channels);

/// All that is random about one crop, drawn before any pixel is touched.
struct CropPlan {
  Rectangle rectangle;
  int side = 0;
  bool flip = false;
  std::optional<ColorJitter> jitter;
  bool greyscale = false;
  std::optional<float> blur_radius;
  bool solarize = false;
};

/// Names a picture of one epoch for the random numbers. The same record in another epoch is cropped
/// otherwise.
struct PictureKey {
  std::uint64_t seed, record, epoch;
};

/// Crop number `crop` (globals first) of a picture of the given size: a pure function of its arguments.
CropPlan plan_crop(const MultiCropOptions& options, Size picture, const PictureKey& key, int crop);

/// Cuts all crops out of a picture: random resized crop (bicubic), flip, jitter, greyscale, blur, solarise,
/// normalise, in this order, 8 bits deep until the last step. One-channel pictures skip what needs colour;
/// pictures with neither one nor three channels are cropped, flipped and normalised only. Keeps scratch
/// memory and resize weights: one per thread.
class MultiCrop {
 public:
  /// @throws Error (usage) when mean and std do not fit together
  explicit MultiCrop(const MultiCropOptions& options);

  /// @param outputs  one pointer per crop, globals first, each to [C, side, side] fp32
  void operator()(const Picture& picture, const PictureKey& key, std::span<float* const> outputs);

  /// The 8-bit crop that a plan describes, before normalisation. Valid until the next call.
  const Planes& apply(const Picture& picture, const CropPlan& plan);

 private:
  void cut(const CropPlan& plan);

  MultiCropOptions options_;
  Normalization normalize_;
  Resizer resizer_;
  GaussianBlur blur_;
  Planes crop_;
};

}  // namespace bireme
