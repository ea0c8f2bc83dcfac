#include "core/ops/pointwise/pointwise.h"

#include <cassert>

#include "core/ops/pointwise/pointwise_kernels.h"
#include "core/ops/pointwise/rotary.h"

namespace bireme {

Var residual_add(Tape& tape, const Var& x, const Var& branch, const Tensor& scale) {
  require_shape("residual_add: branch", branch.value(), x.shape());
  if (scale) require_shape("residual_add: scale", scale, {x.value().rows()});
  const PointwiseKernels& kernels = tape.backend().pointwise();
  const Tensor y = tape.empty(x.shape(), x.dtype());
  kernels.residual_add(ResidualAddForward{.x = x.value(), .branch = branch.value(), .scale = scale, .y = y});
  const bool same = !scale && branch.dtype() == x.dtype();
  return tape.record(
      "residual_add", {x, branch}, y, [&kernels, x, branch, scale, same](const Tensor& dy, Gradients& into) {
        if (same) {
          into.give(branch, dy);
        } else if (const Target dbranch = into[branch]) {
          kernels.residual_add(ResidualAddBackward{.dy = dy, .scale = scale, .dbranch = dbranch});
        }
        into.give(x, dy);
      });
}

Var add_bias(Tape& tape, const Var& x, Parameter& bias) {
  require_shape("add_bias: bias", bias.value(), {x.value().channels()});
  const PointwiseKernels& kernels = tape.backend().pointwise();
  const Tensor y = tape.empty(x.shape(), x.dtype());
  kernels.add_bias(AddBias{.x = x.value(), .bias = bias.value(), .y = y});
  return tape.record("add_bias", {x, bias}, y, [&kernels, x, &bias](const Tensor& dy, Gradients& into) {
    if (const Target dbias = into[bias]) kernels.add_bias(AddBiasBackward{.dy = dy, .dbias = dbias});
    into.give(x, dy);
  });
}

Var sigmoid_gate(Tape& tape, const Var& r, const Var& x) {
  require_shape("sigmoid_gate: r", r.value(), x.shape());
  const PointwiseKernels& kernels = tape.backend().pointwise();
  const Tensor y = tape.empty(x.shape(), x.dtype());
  kernels.sigmoid_gate(SigmoidGateForward{.r = r.value(), .x = x.value(), .y = y});
  return tape.record("sigmoid_gate", {r, x}, y, [&kernels, r, x](const Tensor& dy, Gradients& into) {
    kernels.sigmoid_gate(
        SigmoidGateBackward{.dy = dy, .r = r.value(), .x = x.value(), .dr = into[r], .dx = into[x]});
  });
}

Var silu_gate(Tape& tape, const Var& x) {
  const PointwiseKernels& kernels = tape.backend().pointwise();
  const Tensor y = tape.empty({x.value().rows(), x.value().channels() / 2}, x.dtype());
  kernels.silu_gate(SiluGateForward{.x = x.value(), .y = y});
  return tape.record("silu_gate", {x}, y, [&kernels, x](const Tensor& dy, Gradients& into) {
    kernels.silu_gate(SiluGateBackward{.dy = dy, .x = x.value(), .dx = into[x]});
  });
}

Var rotate(Tape& tape, const Var& x, const RotaryTable& table, const Tensor& positions, int heads) {
  assert(heads * 2 * table.cosines.channels() <= x.value().channels());
  assert(positions.elements() == x.value().rows());
  const Backend& backend = tape.backend();
  backend.pointwise().rotate({.x = x.value(), .table = table, .positions = positions, .heads = heads});
  return tape.record(
      "rotate", {x}, x.value(), [&backend, x, table, positions, heads](const Tensor& dy, Gradients& into) {
        // A gradient that was handed to several is theirs as well.
        const Tensor dx = dy.shared() ? clone(backend.memory(), dy) : dy;
        backend.pointwise().rotate(
            {.x = dx, .table = table, .positions = positions, .heads = heads, .backwards = true});
        into.give(x, dx);
      });
}

Var gelu(Tape& tape, const Var& x) {
  const PointwiseKernels& kernels = tape.backend().pointwise();
  const Tensor y = tape.empty(x.shape(), x.dtype());
  kernels.gelu(GeluForward{.x = x.value(), .y = y});
  return tape.record("gelu", {x}, y, [&kernels, x](const Tensor& dy, Gradients& into) {
    kernels.gelu(GeluBackward{.dy = dy, .x = x.value(), .dx = into[x]});
  });
}

}  // namespace bireme
