#include <algorithm>

#include "core/ops/convolution/convolution.h"
#include "core/ops/convolution/convolution_kernels.h"
#include "core/ops/pointwise/pointwise_kernels.h"

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

namespace {

/// Rows of a piece, and the window of rows that its first ones reach back to.
class BranchWindow {
 public:
  BranchWindow(const Branching& document, const Branching::Piece& piece, std::int64_t kept)
      : piece_(piece),
        kept_(kept),
        held_(piece.is_branch ? std::min(kept, document.trunk) : 0),
        end_(document.begin + document.trunk) {}

  bool reaches_back() const { return held_ > 0; }
  Tensor own(const Tensor& x) const { return x.slice(piece_.begin, piece_.begin + piece_.length); }
  /// The trunk's rows of the window.
  Tensor held(const Tensor& x) const { return x.slice(end_ - held_, end_); }
  Shape shape(const Tensor& x) const { return {1, kept_, x.channels()}; }
  /// Rows of a whole window that the trunk has.
  Tensor held_part(const Tensor& window) const {
    return window.reshape({kept_, window.channels()}).slice(kept_ - held_, kept_);
  }
  bool is_whole() const { return held_ == kept_; }
  /// [1, K - 1, C]: the trunk's own memory, or a copy after zeros where the trunk is shorter.
  Tensor before(Memory& memory, const Tensor& x) const {
    if (is_whole()) return held(x).reshape(shape(x));
    Tensor window(memory, shape(x), x.dtype());
    fill(window, 0);
    copy(held(x), held_part(window));
    return window;
  }

 private:
  Branching::Piece piece_;
  std::int64_t kept_, held_, end_;
};

}  // namespace

Var causal_convolution(Tape& tape, const Var& x, Parameter& weight, Parameter& bias,
                       const std::vector<Branching>& documents, bool silu) {
  const std::int64_t channels = x.value().channels(), taps = weight.value().channels();
  require_shape("causal_convolution: weight", weight.value(), {channels, 1, taps});
  require_shape("causal_convolution: bias", bias.value(), {channels});
  const Backend& backend = tape.backend();
  const ConvolutionKernels& kernels = backend.convolution();
  const Tensor y = tape.empty(x.shape(), x.dtype()), nowhere;
  const auto for_pieces = [documents, taps](const auto& body) {
    for (const Branching& document : documents)
      for (const Branching::Piece& piece : document.pieces()) body(BranchWindow(document, piece, taps - 1));
  };
  for_pieces([&](const BranchWindow& window) {
    const Tensor before = window.reaches_back() ? window.before(backend.memory(), x.value()) : Tensor();
    const Tensor own = window.own(x.value()), to = window.own(y);
    kernels.causal_convolution(CausalConvolutionForward{.x = own,
                                                        .weight = weight.value(),
                                                        .bias = bias.value(),
                                                        .before = before,
                                                        .starts = nowhere,
                                                        .sequences = 1,
                                                        .silu = silu,
                                                        .y = to});
  });
  return tape.record(
      "causal_convolution", {x, weight, bias}, y,
      [&backend, &kernels, x, &weight, &bias, for_pieces, silu](const Tensor& dy, Gradients& into) {
        Target dx = into[x], dweight = into[weight], dbias = into[bias];
        const Tensor nowhere;
        // The trunk comes first: branches add to the gradients of its last rows.
        for_pieces([&](const BranchWindow& window) {
          const bool reaches = window.reaches_back();
          const Tensor before = reaches ? window.before(backend.memory(), x.value()) : Tensor();
          const Tensor own = window.own(x.value()), from = window.own(dy);
          CausalConvolutionBackward part{.dy = from,
                                         .x = own,
                                         .weight = weight.value(),
                                         .bias = bias.value(),
                                         .before = before,
                                         .starts = nowhere,
                                         .sequences = 1,
                                         .silu = silu,
                                         .dx = {},
                                         .dweight = dweight,
                                         .dbias = dbias};
          if (dx) part.dx = {window.own(dx.tensor), dx.accumulate};
          if (dx && reaches)
            part.dbefore = window.is_whole()
                               ? Target{window.before(backend.memory(), dx.tensor), true}
                               : Target{Tensor(backend.memory(), window.shape(own), own.dtype()), false};
          kernels.causal_convolution(part);
          if (dx && reaches && !window.is_whole())
            backend.pointwise().add(
                {.from = window.held_part(part.dbefore.tensor), .to = window.held(dx.tensor)});
          dweight.accumulate = dbias.accumulate = true;
        });
      });
}

}  // namespace bireme
