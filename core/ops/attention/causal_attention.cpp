#include "core/ops/attention/causal_attention.h"

#include <cassert>

#include "core/ops/attention/attention_kernels.h"
#include "core/ops/lane_type.h"

namespace bireme {

namespace {

/// Sequences of one length, or documents.
struct CausalLayout {
  std::int64_t length;
  Tensor first;
  std::vector<Branching> documents;
};

Var attend(Tape& tape, const Var& qkv, const AttentionHeads& heads, const CausalLayout& layout) {
  const std::int64_t rows = qkv.value().rows();
  require_shape("causal_attention: qkv", qkv.value(), {rows, heads.channels()});
  assert(heads.queries % heads.keys == 0);
  const AttentionKernels& kernels = tape.backend().attention();
  const Tensor y = tape.empty({rows, heads.queries * heads.dimension}, qkv.dtype());
  const DType sum_type = lane_type(qkv.dtype());
  const bool keeps = tape.recording() && qkv.wants_gradient();
  const Tensor log_sum = keeps ? tape.empty({rows, heads.queries}, sum_type) : Tensor();
  kernels.causal_attention(CausalAttentionForward{.qkv = qkv.value(),
                                                  .heads = heads,
                                                  .length = layout.length,
                                                  .first = layout.first,
                                                  .y = y,
                                                  .log_sum = log_sum,
                                                  .documents = layout.documents});
  return tape.record("causal_attention", {qkv}, y,
                     [&kernels, qkv, y, log_sum, heads, layout](const Tensor& dy, Gradients& into) {
                       kernels.causal_attention(CausalAttentionBackward{.dy = dy,
                                                                        .qkv = qkv.value(),
                                                                        .y = y,
                                                                        .log_sum = log_sum,
                                                                        .heads = heads,
                                                                        .length = layout.length,
                                                                        .first = layout.first,
                                                                        .dqkv = into[qkv],
                                                                        .documents = layout.documents});
                     });
}

}  // namespace

Var causal_attention(Tape& tape, const Var& qkv, const AttentionHeads& heads, std::int64_t length,
                     const Tensor& first) {
  assert(qkv.value().rows() % length == 0);
  assert(!first || first.elements() == qkv.value().rows());
  return attend(tape, qkv, heads, {.length = length, .first = first, .documents = {}});
}

Var causal_attention(Tape& tape, const Var& qkv, const AttentionHeads& heads,
                     const std::vector<Branching>& documents) {
  return attend(tape, qkv, heads, {.length = qkv.value().rows(), .first = {}, .documents = documents});
}

}  // namespace bireme
