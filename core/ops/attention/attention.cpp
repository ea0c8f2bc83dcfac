#include "core/ops/attention/attention.h"

#include "core/base/error.h"
#include "core/ops/attention/attention_kernels.h"
#include "core/ops/lane_type.h"

namespace bireme {

std::int64_t rows_of(const Segments& segments) {
  std::int64_t rows = 0;
  for (const Segment& segment : segments) rows += segment.count * segment.length;
  return rows;
}

Var attention(Tape& tape, const Var& qkv, int heads, const Segments& segments) {
  const std::int64_t rows = rows_of(segments);
  const std::int64_t channels = qkv.value().channels() / 3;
  if (heads < 1 || channels % heads != 0) {
    throw Error(ErrorKind::usage,
                "attention: " + std::to_string(channels) + " channels do not divide by " +
                    std::to_string(heads) + " heads",
                "", "choose model.heads so that it divides model.embed_dim");
  }
  require_shape("attention: qkv", qkv.value(), {rows, 3 * channels});
  const AttentionKernels& kernels = tape.backend().attention();
  const Tensor y = tape.empty({rows, channels}, qkv.dtype());
  const bool keeps = tape.recording() && qkv.wants_gradient();
  const Tensor log_sum = keeps ? tape.empty({rows, heads}, lane_type(qkv.dtype())) : Tensor();
  kernels.attention({.qkv = qkv.value(), .heads = heads, .segments = segments, .y = y, .log_sum = log_sum});
  return tape.record("attention", {qkv}, y,
                     [&kernels, qkv, y, log_sum, heads, segments](const Tensor& dy, Gradients& into) {
                       kernels.attention({.dy = dy,
                                          .qkv = qkv.value(),
                                          .y = y,
                                          .log_sum = log_sum,
                                          .heads = heads,
                                          .segments = segments,
                                          .dqkv = into[qkv]});
                     });
}

Tensor attention_weights(const Backend& backend, const Tensor& qkv, int heads, const Segment& segment) {
  const Tensor weights(backend.memory(), {segment.count, heads, segment.length, segment.length}, DType::f32);
  backend.attention().weights({.qkv = qkv, .heads = heads, .segment = segment, .weights = weights});
  return weights;
}

}  // namespace bireme
