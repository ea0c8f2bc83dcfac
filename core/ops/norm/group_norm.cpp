#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/ops/lane_type.h"
#include "core/ops/norm/norm.h"
#include "core/ops/norm/norm_kernels.h"

namespace bireme {

Var group_norm(Tape& tape, const Var& x, std::int64_t groups, Parameter& gain, float offset, float epsilon,
               DType type) {
  const std::int64_t channels = x.value().channels(), rows = x.value().rows();
  require_shape("group_norm: gain", gain.value(), {channels});
  if (groups < 1 || channels % groups != 0)
    throw Error(ErrorKind::usage,
                fmt::format("group_norm: {} channels do not divide by {} groups", channels, groups), "",
                "choose a number of heads that divides the width");
  const NormKernels& kernels = tape.backend().norm();
  const DType statistics = lane_type(x.dtype());
  const Tensor y = tape.empty(x.shape(), type);
  const Tensor mean = tape.empty({rows, groups}, statistics),
               reciprocal = tape.empty({rows, groups}, statistics);
  kernels.group_norm(GroupNormForward{.x = x.value(),
                                      .gain = gain.value(),
                                      .y = y,
                                      .mean = mean,
                                      .reciprocal = reciprocal,
                                      .offset = offset,
                                      .epsilon = epsilon});
  return tape.record("group_norm", {x, gain}, y,
                     [&kernels, x, &gain, mean, reciprocal, offset](const Tensor& dy, Gradients& into) {
                       kernels.group_norm(GroupNormBackward{.dy = dy,
                                                            .x = x.value(),
                                                            .gain = gain.value(),
                                                            .mean = mean,
                                                            .reciprocal = reciprocal,
                                                            .offset = offset,
                                                            .dx = into[x],
                                                            .dgain = into[gain]});
                     });
}

}  // namespace bireme
