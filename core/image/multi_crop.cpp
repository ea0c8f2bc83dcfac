#include "core/image/multi_crop.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <string>
#include <utility>

#include "core/base/error.h"

namespace bireme {
namespace {

void require(bool holds, const std::string& what, const std::string& remedy) {
  if (!holds) throw Error(ErrorKind::usage, what, "section [data]", remedy);
}

void check_side(const char* key, int side, int width, int height) {
  const int shorter = std::min(width, height);
  require(side >= 1, fmt::format("{} is {}", key, side), "choose at least 1 pixel");
  require(
      side <= shorter,
      fmt::format("{} is {}, but the dataset has pictures of {} x {} pixels", key, side, width, height),
      fmt::format("choose {} at most {}, or prepare the dataset with a larger --image-size", key, shorter));
}

void check_probability(const char* key, double value) {
  require(value >= 0 && value <= 1, fmt::format("{} is {}, not a probability", key, value),
          "choose it in 0 ... 1");
}

void check_area(const char* key, const AreaRange& area) {
  require(area.low > 0 && area.low <= area.high && area.high <= 1,
          fmt::format("{}_min and _max are {} and {}", key, area.low, area.high),
          "choose shares of the picture's area, 0 < low <= high <= 1");
}

void check_strength(const char* key, double value, double highest) {
  require(value >= 0 && value <= highest, fmt::format("{} is {}", key, value),
          fmt::format("choose it in 0 ... {}", highest));
}

/// A factor in 1 ± strength that is not negative.
float draw_factor(RandomStream& random, double strength) {
  return static_cast<float>(random.uniform(std::max(1 - strength, 0.0), 1 + strength));
}

ColorJitter draw_jitter(const MultiCropOptions& options, RandomStream& random) {
  ColorJitter jitter;
  for (int i = 3; i > 0; --i) std::swap(jitter.order[i], jitter.order[random.below(i + 1)]);
  jitter.brightness = draw_factor(random, options.brightness);
  jitter.contrast = draw_factor(random, options.contrast);
  jitter.saturation = draw_factor(random, options.saturation);
  jitter.hue = random.uniform(-options.hue, options.hue);
  return jitter;
}

}  // namespace

void validate(const MultiCropOptions& options, int width, int height, int channels) {
  require(options.global_crops >= 1, fmt::format("the number of global crops is {}", options.global_crops),
          "choose at least 1: the teacher sees the global crops");
  require(options.local_crops >= 0, fmt::format("data.local_crops is {}", options.local_crops),
          "choose 0 or more");
  check_side("data.global_size", options.global_size, width, height);
  if (options.local_crops > 0) check_side("data.local_size", options.local_size, width, height);
  check_area("data.global_scale", options.global_scale);
  check_area("data.local_scale", options.local_scale);
  for (const auto& [key, value] : {std::pair{"data.flip_probability", options.flip},
                                   {"data.jitter_probability", options.jitter},
                                   {"data.greyscale_probability", options.greyscale},
                                   {"data.blur_probability_global1", options.blur_first_global},
                                   {"data.blur_probability_global2", options.blur_other_globals},
                                   {"data.blur_probability_local", options.blur_locals},
                                   {"data.solarize_probability", options.solarize}})
    check_probability(key, value);
  check_strength("data.brightness", options.brightness, 10);
  check_strength("data.contrast", options.contrast, 10);
  check_strength("data.saturation", options.saturation, 10);
  check_strength("data.hue", options.hue, 0.5);
  require(options.blur_lowest_radius >= 0 && options.blur_lowest_radius <= options.blur_highest_radius &&
              options.blur_highest_radius <= 1000,
          fmt::format("data.blur_radius_min and _max are {} and {}", options.blur_lowest_radius,
                      options.blur_highest_radius),
          "choose 0 <= lowest <= highest <= 1000 pixels");
  require(
      options.mean.size() == static_cast<std::size_t>(channels) && options.std.size() == options.mean.size(),
      fmt::format("data.mean has {} and data.std {} entries, but the pictures have {} channels",
                  options.mean.size(), options.std.size(), channels),
      fmt::format("give {} of each", channels));
}

CropPlan plan_crop(const MultiCropOptions& options, Size picture, const PictureKey& key, int crop) {
  RandomStream random(key.seed, key.record, RandomUse::augment,
                      key.epoch << 16 | static_cast<std::uint64_t>(crop));
  const bool is_global = crop < options.global_crops;
  const double blur = !is_global  ? options.blur_locals
                      : crop == 0 ? options.blur_first_global
                                  : options.blur_other_globals;
  CropPlan plan;
  plan.side = options.side(crop);
  plan.rectangle = random_crop(picture, is_global ? options.global_scale : options.local_scale, random);
  plan.flip = random.chance(options.flip);
  if (random.chance(options.jitter)) plan.jitter = draw_jitter(options, random);
  plan.greyscale = random.chance(options.greyscale);
  if (random.chance(blur))
    plan.blur_radius =
        static_cast<float>(random.uniform(options.blur_lowest_radius, options.blur_highest_radius));
  plan.solarize = is_global && crop > 0 && random.chance(options.solarize);
  return plan;
}

MultiCrop::MultiCrop(const MultiCropOptions& options)
    : options_(options), normalize_(options.mean, options.std) {}

void MultiCrop::operator()(const Picture& picture, const PictureKey& key, std::span<float* const> outputs) {
  assert(outputs.size() == static_cast<std::size_t>(options_.crops()));
  assert(picture.channels == normalize_.channels());
  resizer_.load(picture);
  for (int crop = 0; crop < options_.crops(); ++crop) {
    cut(plan_crop(options_, {.height = picture.height, .width = picture.width}, key, crop));
    normalize_(crop_, outputs[crop]);
  }
}

const Planes& MultiCrop::apply(const Picture& picture, const CropPlan& plan) {
  resizer_.load(picture);
  cut(plan);
  return crop_;
}

void MultiCrop::cut(const CropPlan& plan) {
  resizer_.crop({.rectangle = plan.rectangle, .width = plan.side, .height = plan.side, .flip = plan.flip},
                crop_);
  if (crop_.channels != 1 && crop_.channels != 3) return;  // not known to be light
  if (plan.jitter) jitter(crop_, *plan.jitter);
  if (plan.greyscale) to_grey(crop_);
  if (plan.blur_radius) blur_(crop_, *plan.blur_radius);
  if (plan.solarize) solarize(crop_);
}

}  // namespace bireme
