#include "core/ops/convolution/convolution.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/ops/convolution/convolution_kernels.h"

namespace bireme {

namespace {

/// Patches of one batch of pictures.
std::int64_t patches_of(const Shape& images, int patch) {
  if (images.rank() != 4 || images[2] < patch || images[3] < patch) {
    throw Error(ErrorKind::data,
                fmt::format("pictures of shape {} hold no patch of {} pixels", to_string(images), patch),
                "extract_patches", "choose a smaller model.patch_size or larger crops");
  }
  return images[0] * (images[2] / patch) * (images[3] / patch);
}

}  // namespace

Var extract_patches(Tape& tape, const std::vector<Var>& images, int patch, DType type) {
  std::int64_t rows = 0, channels = 0;
  std::vector<Source> sources;
  for (const Var& group : images) {
    rows += patches_of(group.shape(), patch);
    channels = group.shape()[1];
    sources.emplace_back(group);
  }
  const ConvolutionKernels& kernels = tape.backend().convolution();
  const Tensor y = tape.empty({rows, channels * patch * patch}, type);
  std::int64_t begin = 0;
  for (const Var& group : images) {
    const std::int64_t end = begin + patches_of(group.shape(), patch);
    require_shape("extract_patches: pictures", group.value(),
                  {group.shape()[0], channels, group.shape()[2], group.shape()[3]});
    kernels.extract_patches(
        ExtractPatchesForward{.images = group.value(), .patch = patch, .y = y.slice(begin, end)});
    begin = end;
  }
  return tape.record(
      "extract_patches", sources, y, [&kernels, images, patch](const Tensor& dy, Gradients& into) {
        std::int64_t from = 0;
        for (const Var& group : images) {
          const std::int64_t to = from + patches_of(group.shape(), patch);
          if (const Target dimages = into[group])
            kernels.extract_patches(
                ExtractPatchesBackward{.dy = dy.slice(from, to), .patch = patch, .dimages = dimages});
          from = to;
        }
      });
}

}  // namespace bireme
