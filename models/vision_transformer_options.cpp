#include <spdlog/fmt/fmt.h>

#include <cmath>

#include "core/base/error.h"
#include "models/vision_transformer.h"

namespace bireme {

std::int64_t VisionTransformerOptions::hidden() const {
  return std::llround(mlp_ratio * static_cast<double>(embed_dim));
}

std::int64_t VisionTransformerOptions::parameter_count() const {
  const std::int64_t pixels = std::int64_t{channels} * patch * patch;
  const std::int64_t positions = grid_rows() * grid_columns() + 1;
  const std::int64_t block = 4 * embed_dim * embed_dim + 2 * embed_dim * hidden() + 9 * embed_dim + hidden();
  return (pixels + 2 + positions) * embed_dim + depth * block + 2 * embed_dim;
}

namespace {

[[noreturn]] void refuse(const std::string& problem, const std::string& remedy) {
  throw Error(ErrorKind::usage, problem, "vision transformer", remedy);
}

}  // namespace

void VisionTransformerOptions::validate() const {
  if (embed_dim < 1 || depth < 1 || heads < 1 || patch < 1 || channels < 1)
    refuse(fmt::format("width {}, depth {}, heads {}, patch {} and channels {} must all be positive",
                       embed_dim, depth, heads, patch, channels),
           "correct the [model] section");
  if (embed_dim % heads != 0)
    refuse(fmt::format("model.embed_dim is {}, which {} heads cannot share evenly", embed_dim, heads),
           fmt::format("choose a multiple of {}, such as {}", heads, (embed_dim / heads + 1) * heads));
  if (grid_rows() < 1 || grid_columns() < 1)
    refuse(fmt::format("model.image_size is {}, smaller than a patch of {}", image_size, patch),
           "choose a larger model.image_size or a smaller model.patch_size");
  if (hidden() < 1)
    refuse(fmt::format("model.mlp_ratio is {}", mlp_ratio), "choose a positive ratio, usually 4");
  if (drop_path < 0 || drop_path >= 1)
    refuse(fmt::format("model.drop_path is {}", drop_path), "choose a rate from 0 to below 1, usually 0.1");
  if (init_std < 0)
    refuse(fmt::format("model.init_std is {}", init_std),
           "choose a deviation such as 0.02, or 0 for Xavier-uniform");
}

VisionTransformerOptions vision_transformer_size(const std::string& name) {
  if (name == "tiny") return {.embed_dim = 192, .depth = 12, .heads = 3};
  if (name == "small") return {.embed_dim = 384, .depth = 12, .heads = 6};
  if (name == "base") return {.embed_dim = 768, .depth = 12, .heads = 12};
  throw Error(ErrorKind::usage, fmt::format("there is no vision transformer of the size `{}`", name),
              "model.size", "choose tiny, small or base");
}

}  // namespace bireme
