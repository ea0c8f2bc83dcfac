#include "core/ops/convolution/convolution.h"
#include "core/ops/convolution/convolution_kernels.h"

namespace bireme {

Var causal_convolution(Tape& tape, const Var& x, Parameter& weight, Parameter& bias, const Tensor& before,
                       const Tensor& starts, std::int64_t sequences, bool silu) {
  const std::int64_t channels = x.value().channels(), taps = weight.value().channels();
  require_shape("causal_convolution: weight", weight.value(), {channels, 1, taps});
  require_shape("causal_convolution: bias", bias.value(), {channels});
  if (before && taps > 1)
    require_shape("causal_convolution: before", before, {sequences, taps - 1, channels});
  if (starts) require_shape("causal_convolution: starts", starts, {sequences, x.value().rows() / sequences});
  const ConvolutionKernels& kernels = tape.backend().convolution();
  const Tensor y = tape.empty(x.shape(), x.dtype());
  kernels.causal_convolution(CausalConvolutionForward{.x = x.value(),
                                                      .weight = weight.value(),
                                                      .bias = bias.value(),
                                                      .before = before,
                                                      .starts = starts,
                                                      .sequences = sequences,
                                                      .silu = silu,
                                                      .y = y});
  return tape.record(
      "causal_convolution", {x, weight, bias}, y,
      [&kernels, x, &weight, &bias, before, starts, sequences, silu](const Tensor& dy, Gradients& into) {
        kernels.causal_convolution(CausalConvolutionBackward{.dy = dy,
                                                             .x = x.value(),
                                                             .weight = weight.value(),
                                                             .bias = bias.value(),
                                                             .before = before,
                                                             .starts = starts,
                                                             .sequences = sequences,
                                                             .silu = silu,
                                                             .dx = into[x],
                                                             .dweight = into[weight],
                                                             .dbias = into[bias]});
      });
}

}  // namespace bireme
