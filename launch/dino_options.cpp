#include "launch/dino_options.h"

namespace bireme {

DinoNetworkOptions network_options(const Configuration& configuration) {
  const auto& m = configuration.model;
  DinoNetworkOptions options;
  options.backbone = {.embed_dim = m.embed_dim,
                      .depth = static_cast<int>(m.depth),
                      .heads = static_cast<int>(m.heads),
                      .patch = static_cast<int>(m.patch_size),
                      .channels = static_cast<int>(m.channels),
                      .image_size = static_cast<int>(m.image_size),
                      .mlp_ratio = m.mlp_ratio,
                      .drop_path = m.drop_path,
                      .init_std = m.init_std};
  options.head = {.in_dim = m.embed_dim,
                  .layers = static_cast<int>(m.head_layers),
                  .hidden = m.head_hidden,
                  .bottleneck = m.head_bottleneck,
                  .out_dim = m.prototypes,
                  .batch_norm = m.head_batch_norm,
                  .norm_last_layer = m.norm_last_layer,
                  .init_std = m.init_std};
  return options;
}

MultiCropOptions multi_crop_options(const Configuration& configuration, const Dataset& dataset) {
  const auto& d = configuration.data;
  MultiCropOptions options{.global_size = static_cast<int>(d.global_size),
                           .local_crops = static_cast<int>(d.local_crops),
                           .local_size = static_cast<int>(d.local_size),
                           .global_scale = {d.global_scale_min, d.global_scale_max},
                           .local_scale = {d.local_scale_min, d.local_scale_max},
                           .flip = d.flip_probability,
                           .jitter = d.jitter_probability,
                           .brightness = d.brightness,
                           .contrast = d.contrast,
                           .saturation = d.saturation,
                           .hue = d.hue,
                           .greyscale = d.greyscale_probability,
                           .blur_first_global = d.blur_probability_global1,
                           .blur_other_globals = d.blur_probability_global2,
                           .blur_locals = d.blur_probability_local,
                           .blur_lowest_radius = d.blur_radius_min,
                           .blur_highest_radius = d.blur_radius_max,
                           .solarize = d.solarize_probability};
  const std::vector<double>& mean = d.mean.empty() ? dataset.manifest().pixel_mean : d.mean;
  const std::vector<double>& deviation = d.std.empty() ? dataset.manifest().pixel_std : d.std;
  options.mean.assign(mean.begin(), mean.end());
  options.std.assign(deviation.begin(), deviation.end());
  return options;
}

DinoStep dino_step(const Configuration& configuration, std::int64_t step, std::int64_t steps) {
  const auto& o = configuration.objective;
  return {.teacher_temperature = ramp(o.teacher_temperature_start, o.teacher_temperature, step,
                                      o.teacher_temperature_warmup_steps),
          .teacher_momentum = cosine_between(o.teacher_momentum, o.teacher_momentum_end, step, steps),
          .freeze_last_layer = step < o.freeze_last_layer_steps};
}

}  // namespace bireme
