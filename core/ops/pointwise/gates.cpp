#include "core/ops/pointwise/pointwise.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

Var skip_gate(Tape& tape, const Var& h, const Var& u, Parameter& skip, const Var& z) {
  require_shape("skip_gate: u", u.value(), h.shape());
  require_shape("skip_gate: z", z.value(), h.shape());
  require_shape("skip_gate: skip", skip.value(), {h.value().channels()});
  const PointwiseKernels& kernels = tape.backend().pointwise();
  const Tensor y = tape.empty(h.shape(), h.dtype());
  kernels.skip_gate(
      SkipGateForward{.h = h.value(), .u = u.value(), .skip = skip.value(), .z = z.value(), .y = y});
  return tape.record("skip_gate", {h, u, skip, z}, y,
                     [&kernels, h, u, &skip, z](const Tensor& dy, Gradients& into) {
                       kernels.skip_gate(SkipGateBackward{.dy = dy,
                                                          .h = h.value(),
                                                          .u = u.value(),
                                                          .skip = skip.value(),
                                                          .z = z.value(),
                                                          .dh = into[h],
                                                          .du = into[u],
                                                          .dskip = into[skip],
                                                          .dz = into[z]});
                     });
}

Var activation_gate(Tape& tape, const Var& x, Activation activation) {
  const PointwiseKernels& kernels = tape.backend().pointwise();
  const std::int64_t width = x.value().channels() / 2;
  require_shape("activation_gate: x", x.value(), {x.value().rows(), 2 * width});
  const Tensor y = tape.empty({x.value().rows(), width}, x.dtype());
  kernels.activation_gate(ActivationGateForward{.x = x.value(), .y = y, .activation = activation});
  return tape.record("activation_gate", {x}, y, [&kernels, x, activation](const Tensor& dy, Gradients& into) {
    kernels.activation_gate(
        ActivationGateBackward{.dy = dy, .x = x.value(), .activation = activation, .dx = into[x]});
  });
}

}  // namespace bireme
