#include "core/ops/norm/norm.h"

#include <cassert>

#include "core/ops/lane_type.h"
#include "core/ops/norm/norm_kernels.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

namespace {

void require_channels(const char* gain_name, const Parameter& gain, const char* bias_name,
                      const Parameter& bias, const Var& x) {
  require_shape(gain_name, gain.value(), {x.value().channels()});
  require_shape(bias_name, bias.value(), {x.value().channels()});
}

}  // namespace

Var layer_norm(Tape& tape, const Var& x, Parameter& gain, Parameter& bias, float epsilon, DType type) {
  require_channels("layer_norm: gain", gain, "layer_norm: bias", bias, x);
  const NormKernels& kernels = tape.backend().norm();
  const Tensor y = tape.empty(x.shape(), type);
  const Tensor mean = tape.empty({x.value().rows()}, lane_type(x.dtype()));
  const Tensor reciprocal = tape.empty({x.value().rows()}, lane_type(x.dtype()));
  kernels.layer_norm(LayerNormForward{.x = x.value(),
                                      .gain = gain.value(),
                                      .bias = bias.value(),
                                      .y = y,
                                      .mean = mean,
                                      .reciprocal = reciprocal,
                                      .epsilon = epsilon});
  return tape.record("layer_norm", {x, gain, bias}, y,
                     [&kernels, x, &gain, &bias, mean, reciprocal](const Tensor& dy, Gradients& into) {
                       kernels.layer_norm(LayerNormBackward{.dy = dy,
                                                            .x = x.value(),
                                                            .gain = gain.value(),
                                                            .mean = mean,
                                                            .reciprocal = reciprocal,
                                                            .direct = {},
                                                            .dx = into[x],
                                                            .scale = {},
                                                            .dbranch = {},
                                                            .dgain = into[gain],
                                                            .dbias = into[bias]});
                     });
}

ResidualNorm residual_layer_norm(Tape& tape, const Var& x, const Var& branch, const Tensor& scale,
                                 Parameter& gain, Parameter& bias, float epsilon, DType type) {
  require_channels("residual_layer_norm: gain", gain, "residual_layer_norm: bias", bias, x);
  require_shape("residual_layer_norm: branch", branch.value(), x.shape());
  if (scale) require_shape("residual_layer_norm: scale", scale, {x.value().rows()});
  assert(branch.dtype() == type);
  const Backend& backend = tape.backend();
  const Tensor x_sum = tape.empty(x.shape(), x.dtype()), y = tape.empty(x.shape(), type);
  const Tensor mean = tape.empty({x.value().rows()}, lane_type(x.dtype()));
  const Tensor reciprocal = tape.empty({x.value().rows()}, lane_type(x.dtype()));
  backend.norm().residual_layer_norm({.x = x.value(),
                                      .branch = branch.value(),
                                      .scale = scale,
                                      .gain = gain.value(),
                                      .bias = bias.value(),
                                      .x_sum = x_sum,
                                      .y = y,
                                      .mean = mean,
                                      .reciprocal = reciprocal,
                                      .epsilon = epsilon});
  // Without a scale and in one type, x and the branch have the same gradient: one tensor is given to both.
  const bool same = !scale && branch.dtype() == x.dtype();
  const auto backward = [&backend, x, branch, scale, x_sum, &gain, &bias, mean, reciprocal, same](
                            std::span<const Tensor> dy, Gradients& into) {
    const Tensor& direct = dy[0];
    // What reached the sum directly is overwritten in place, unless someone else still holds it.
    const bool is_free = direct && !direct.shared();
    const Tensor dx = is_free || !dy[1] ? direct : Tensor(backend.memory(), x.shape(), x.dtype());
    if (dy[1]) {
      const Target whole{dx, false}, dbranch = same ? Target{} : into[branch];
      backend.norm().layer_norm(LayerNormBackward{.dy = dy[1],
                                                  .x = x_sum,
                                                  .gain = gain.value(),
                                                  .mean = mean,
                                                  .reciprocal = reciprocal,
                                                  .direct = direct,
                                                  .dx = whole,
                                                  .scale = scale,
                                                  .dbranch = dbranch,
                                                  .dgain = into[gain],
                                                  .dbias = into[bias]});
    } else if (!same) {
      backend.pointwise().residual_add(
          ResidualAddBackward{.dy = direct, .scale = scale, .dbranch = into[branch]});
    }
    into.give(x, dx);
    if (same) into.give(branch, dx);
  };
  const std::vector<Var> results =
      tape.record("residual_layer_norm", {x, branch, gain, bias}, {x_sum, y}, backward);
  return {.x = results[0], .y = results[1]};
}

Var l2_normalize(Tape& tape, const Var& x) {
  const NormKernels& kernels = tape.backend().norm();
  const Tensor u = tape.empty(x.shape(), x.dtype());
  const Tensor norm = tape.empty({x.value().rows()}, lane_type(x.dtype()));
  kernels.l2_normalize(L2NormalizeForward{.x = x.value(), .u = u, .norm = norm});
  return tape.record("l2_normalize", {x}, u, [&kernels, x, u, norm](const Tensor& du, Gradients& into) {
    kernels.l2_normalize(L2NormalizeBackward{.du = du, .u = u, .norm = norm, .dx = into[x]});
  });
}

Var weight_norm(Tape& tape, Parameter& direction, Parameter& magnitude, DType type) {
  require_shape("weight_norm: magnitude", magnitude.value(), {direction.shape().front(), 1});
  const NormKernels& kernels = tape.backend().norm();
  const Tensor weight = tape.empty(direction.shape(), type);
  const Tensor norm = tape.empty({direction.shape().front()}, direction.value().dtype());
  kernels.weight_norm(WeightNormForward{
      .direction = direction.value(), .magnitude = magnitude.value(), .weight = weight, .norm = norm});
  return tape.record("weight_norm", {direction, magnitude}, weight,
                     [&kernels, &direction, &magnitude, norm](const Tensor& dweight, Gradients& into) {
                       kernels.weight_norm(WeightNormBackward{.dweight = dweight,
                                                              .direction = direction.value(),
                                                              .magnitude = magnitude.value(),
                                                              .norm = norm,
                                                              .ddirection = into[direction],
                                                              .dmagnitude = into[magnitude]});
                     });
}

Var batch_norm(Tape& tape, const Var& x, Parameter& gain, Parameter& bias, BatchNormState& state,
               const SumOverRanks& sum, float epsilon, float momentum) {
  require_channels("batch_norm: gain", gain, "batch_norm: bias", bias, x);
  const NormKernels& kernels = tape.backend().norm();
  const DType type = lane_type(x.dtype());
  const std::int64_t channels = x.value().channels();
  const auto over_ranks = [&sum](const Tensor& tensor) {
    if (sum) sum(tensor);
  };
  const Tensor sums = tape.empty({channels + 1}, type), squares = tape.empty({channels}, type);
  kernels.batch_sums({.x = x.value(), .sums = sums});
  over_ranks(sums);
  kernels.batch_squares({.x = x.value(), .sums = sums, .squares = squares});
  over_ranks(squares);
  const Tensor y = tape.empty(x.shape(), x.dtype());
  kernels.batch_norm(BatchNormForward{.x = x.value(),
                                      .sums = sums,
                                      .squares = squares,
                                      .gain = gain.value(),
                                      .bias = bias.value(),
                                      .y = y,
                                      .running_mean = state.running_mean,
                                      .running_variance = state.running_variance,
                                      .epsilon = epsilon,
                                      .momentum = momentum});
  const Tensor totals = tape.recording() ? tape.empty({2 * channels}, type) : Tensor();
  return tape.record(
      "batch_norm", {x, gain, bias}, y,
      [&kernels, x, &gain, &bias, sums, squares, totals, sum, epsilon](const Tensor& dy, Gradients& into) {
        kernels.batch_norm(BatchNormTotals{.dy = dy,
                                           .x = x.value(),
                                           .sums = sums,
                                           .squares = squares,
                                           .totals = totals,
                                           .dgain = into[gain],
                                           .dbias = into[bias],
                                           .epsilon = epsilon});
        if (sum) sum(totals);
        if (const Target dx = into[x])
          kernels.batch_norm(BatchNormBackward{.dy = dy,
                                               .x = x.value(),
                                               .sums = sums,
                                               .squares = squares,
                                               .totals = totals,
                                               .gain = gain.value(),
                                               .dx = dx,
                                               .epsilon = epsilon});
      });
}

}  // namespace bireme
