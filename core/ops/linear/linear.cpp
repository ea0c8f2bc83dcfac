#include "core/ops/linear/linear.h"

#include "core/ops/linear/linear_kernels.h"

namespace bireme {

namespace {

Shape with_channels(Shape shape, std::int64_t channels) {
  shape[-1] = channels;
  return shape;
}

void require_inner_size(const Var& x, const Tensor& weight, const std::string& name) {
  require_shape(("linear: weight " + name).c_str(), weight, {weight.shape().front(), x.value().channels()});
}

}  // namespace

Var linear(Tape& tape, const Var& x, Parameter& weight, Parameter* bias) {
  require_inner_size(x, weight.value(), weight.name());
  const LinearKernels& kernels = tape.backend().linear();
  const Tensor y = tape.empty(with_channels(x.shape(), weight.shape().front()), x.dtype());
  kernels.linear({.x = x.value(),
                  .weight = weight.as(x.dtype()),
                  .bias = bias != nullptr ? bias->value() : Tensor(),
                  .y = y});
  std::vector<Source> sources{x, weight};
  if (bias != nullptr) sources.emplace_back(*bias);
  return tape.record("linear", sources, y, [&kernels, x, &weight, bias](const Tensor& dy, Gradients& into) {
    kernels.linear({.dy = dy,
                    .x = x.value(),
                    .weight = weight.as(x.dtype()),
                    .dx = into[x],
                    .dweight = into[weight],
                    .dbias = bias != nullptr ? into[*bias] : Target()});
  });
}

Var linear(Tape& tape, const Var& x, const Var& weight) {
  require_inner_size(x, weight.value(), "");
  const LinearKernels& kernels = tape.backend().linear();
  const Tensor y = tape.empty(with_channels(x.shape(), weight.shape().front()), x.dtype());
  kernels.linear({.x = x.value(), .weight = weight.value(), .bias = {}, .y = y});
  return tape.record("linear", {x, weight}, y, [&kernels, x, weight](const Tensor& dy, Gradients& into) {
    kernels.linear({.dy = dy,
                    .x = x.value(),
                    .weight = weight.value(),
                    .dx = into[x],
                    .dweight = into[weight],
                    .dbias = {}});
  });
}

Var linear_gelu(Tape& tape, const Var& x, Parameter& weight, Parameter& bias) {
  require_inner_size(x, weight.value(), weight.name());
  const LinearKernels& kernels = tape.backend().linear();
  const Shape shape = with_channels(x.shape(), weight.shape().front());
  const Tensor y = tape.empty(shape, x.dtype());
  // Where nothing is kept for the way back, z and y share their memory.
  const Tensor z = tape.recording() ? tape.empty(shape, x.dtype()) : y;
  kernels.linear_gelu({.x = x.value(), .weight = weight.as(x.dtype()), .bias = bias.value(), .z = z, .y = y});
  return tape.record("linear_gelu", {x, weight, bias}, y,
                     [&kernels, x, &weight, &bias, z](const Tensor& dy, Gradients& into) {
                       kernels.linear_gelu({.dy = dy,
                                            .z = z,
                                            .x = x.value(),
                                            .weight = weight.as(x.dtype()),
                                            .dx = into[x],
                                            .dweight = into[weight],
                                            .dbias = into[bias]});
                     });
}

Var linear_squared_relu(Tape& tape, const Var& x, Parameter& weight) {
  require_inner_size(x, weight.value(), weight.name());
  const Backend& backend = tape.backend();
  const Tensor y = tape.empty(with_channels(x.shape(), weight.shape().front()), x.dtype());
  backend.linear().linear_squared_relu({.x = x.value(), .weight = weight.as(x.dtype()), .y = y});
  return tape.record("linear_squared_relu", {x, weight}, y,
                     [&backend, x, &weight, y](const Tensor& dy, Gradients& into) {
                       const Tensor dz = dy.shared() ? Tensor(backend.memory(), dy.shape(), dy.dtype()) : dy;
                       backend.linear().linear_squared_relu({.dy = dy,
                                                             .y = y,
                                                             .dz = dz,
                                                             .x = x.value(),
                                                             .weight = weight.as(x.dtype()),
                                                             .dx = into[x],
                                                             .dweight = into[weight]});
                     });
}

}  // namespace bireme
