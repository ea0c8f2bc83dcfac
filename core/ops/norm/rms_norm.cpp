#include <cassert>

#include "core/ops/lane_type.h"
#include "core/ops/norm/norm.h"
#include "core/ops/norm/norm_kernels.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

Var rms_norm(Tape& tape, const Var& x, Parameter& gain, float epsilon, DType type) {
  require_shape("rms_norm: gain", gain.value(), {x.value().channels()});
  const NormKernels& kernels = tape.backend().norm();
  const Tensor y = tape.empty(x.shape(), type);
  const Tensor reciprocal = tape.empty({x.value().rows()}, lane_type(x.dtype()));
  kernels.rms_norm(RmsNormForward{.x = x.value(),
                                  .branch = {},
                                  .gain = gain.value(),
                                  .x_sum = {},
                                  .y = y,
                                  .reciprocal = reciprocal,
                                  .epsilon = epsilon});
  return tape.record("rms_norm", {x, gain}, y,
                     [&kernels, x, &gain, reciprocal](const Tensor& dy, Gradients& into) {
                       kernels.rms_norm(RmsNormBackward{.dy = dy,
                                                        .x = x.value(),
                                                        .gain = gain.value(),
                                                        .reciprocal = reciprocal,
                                                        .direct = {},
                                                        .dx = into[x],
                                                        .dbranch = {},
                                                        .dgain = into[gain]});
                     });
}

ResidualNorm residual_rms_norm(Tape& tape, const Var& x, const Var& branch, Parameter& gain, float epsilon,
                               DType type) {
  require_shape("residual_rms_norm: gain", gain.value(), {x.value().channels()});
  require_shape("residual_rms_norm: branch", branch.value(), x.shape());
  assert(branch.dtype() == type);
  const Backend& backend = tape.backend();
  const Tensor x_sum = tape.empty(x.shape(), x.dtype()), y = tape.empty(x.shape(), type);
  const Tensor reciprocal = tape.empty({x.value().rows()}, lane_type(x.dtype()));
  backend.norm().rms_norm(RmsNormForward{.x = x.value(),
                                         .branch = branch.value(),
                                         .gain = gain.value(),
                                         .x_sum = x_sum,
                                         .y = y,
                                         .reciprocal = reciprocal,
                                         .epsilon = epsilon});
  // In one type, x and the branch have the same gradient: one tensor is given to both.
  const bool same = branch.dtype() == x.dtype();
  const auto backward = [&backend, x, branch, x_sum, &gain, reciprocal, same](std::span<const Tensor> dy,
                                                                              Gradients& into) {
    const Tensor& direct = dy[0];
    // What reached the sum directly is overwritten in place, unless someone else still holds it.
    const bool is_free = direct && !direct.shared();
    const Tensor dx = is_free || !dy[1] ? direct : Tensor(backend.memory(), x.shape(), x.dtype());
    if (dy[1]) {
      const Target whole{dx, false}, dbranch = same ? Target{} : into[branch];
      backend.norm().rms_norm(RmsNormBackward{.dy = dy[1],
                                              .x = x_sum,
                                              .gain = gain.value(),
                                              .reciprocal = reciprocal,
                                              .direct = direct,
                                              .dx = whole,
                                              .dbranch = dbranch,
                                              .dgain = into[gain]});
    } else if (!same) {
      backend.pointwise().residual_add(
          ResidualAddBackward{.dy = direct, .scale = {}, .dbranch = into[branch]});
    }
    into.give(x, dx);
    if (same) into.give(branch, dx);
  };
  const std::vector<Var> results = tape.record("residual_rms_norm", {x, branch, gain}, {x_sum, y}, backward);
  return {.x = results[0], .y = results[1]};
}

}  // namespace bireme
