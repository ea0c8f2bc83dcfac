#include <algorithm>
#include <vector>

#include "core/cuda/cuda_kernels.h"
#include "core/cuda/cudnn_attention.h"
#include "core/cuda/elementwise.cuh"
#include "core/ops/attention/attention_kernels.h"
#include "core/ops/attention/flash_backward_cuda.cuh"
#include "core/ops/attention/flash_forward_cuda.cuh"
#include "core/ops/dispatch.h"

namespace bireme::cuda {

namespace {

/// weights[picture, head, i, j] = exp(q_i · k_j / √d - log_sum_i)
template <class T>
struct WeightsOp {
  const T* qkv;
  const Lane<T>* log_sum;
  float* weights;
  std::int64_t heads, length, dimension;
  Lane<T> scale;

  template <int N>
  __device__ void run(std::int64_t index) const {
    static_assert(N == 1);
    const std::int64_t j = index % length, i = index / length % length,
                       head = index / length / length % heads;
    const std::int64_t first = index / length / length / heads * length, stride = 3 * heads * dimension;
    const T *q = qkv + (first + i) * stride + head * dimension,
            *k = qkv + (first + j) * stride + (heads + head) * dimension;
    Lane<T> score = 0;
    for (std::int64_t c = 0; c < dimension; ++c) score += load(q + c) * load(k + c);
    weights[index] = static_cast<float>(exp(score * scale - log_sum[(first + i) * heads + head]));
  }
};

/// Keys and values of the rows of qkv into the cache.
template <class T>
struct AppendOp {
  const T* qkv;
  const std::int64_t* lengths;
  T *keys, *values;  // [B, G, capacity, d]
  std::int64_t count, queries, groups, capacity, dimension;

  template <int N>
  __device__ void run(std::int64_t index) const {
    static_assert(N == 1);
    const std::int64_t c = index % dimension, group = index / dimension % groups,
                       row = index / dimension / groups;
    const std::int64_t b = row / count, column = lengths[b] + row % count;
    const T* from = qkv + row * (queries + 2 * groups) * dimension;
    const std::int64_t to = ((b * groups + group) * capacity + column) * dimension + c;
    keys[to] = from[(queries + group) * dimension + c];
    values[to] = from[(queries + groups + group) * dimension + c];
  }
};

/// to += from
struct AddOp {
  const bf16* from;
  bf16* to;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    to[i] = from_float<bf16>(to_float(to[i]) + to_float(from[i]));
  }
};

template <class T>
FlashShape<T> packed_shape(const Tensor& qkv, int queries, int keys, std::int64_t dimension) {
  const std::int64_t channels = (queries + 2 * keys) * dimension;
  return {.q = qkv.data<T>(),
          .k = qkv.data<T>() + queries * dimension,
          .v = qkv.data<T>() + (queries + keys) * dimension,
          .q_row = channels,
          .k_row = channels,
          .k_head = dimension,
          .heads = queries,
          .group = queries / keys,
          .dimension = dimension,
          .scale = 1 / std::sqrt(static_cast<Lane<T>>(dimension))};
}

class CudaAttention final : public AttentionKernels {
 public:
  explicit CudaAttention(DeviceMemory& memory) : memory_(memory), cudnn_(memory) {}

  void attention(const AttentionForward& a) const override {
    if (cudnn_runs(packed(a), a.qkv.dtype(), a.log_sum.defined())) return cudnn_forward(packed(a), a);
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) {
      FlashShape<T> shape = packed_shape<T>(a.qkv, a.heads, a.heads, a.y.channels() / a.heads);
      for_segments(a.segments, shape,
                   [&] { flash_forward(memory_, shape, a.y.data<T>(), data_or_null<Lane<T>>(a.log_sum)); });
    });
  }
  void attention(const AttentionBackward& a) const override {
    if (cudnn_runs(packed(a), a.qkv.dtype(), true)) return cudnn_backward(packed(a), a);
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) {
      const Tensor delta = delta_of<T>(a.dy, a.y, a.heads);
      FlashShape<T> shape = packed_shape<T>(a.qkv, a.heads, a.heads, a.y.channels() / a.heads);
      for_segments(a.segments, shape, [&] {
        flash_backward(memory_, shape,
                       {a.dy.data<T>(), a.log_sum.data<Lane<T>>(), delta.data<Lane<T>>(),
                        a.dqkv.tensor.data<T>(), a.dqkv.accumulate});
      });
    });
  }
  void weights(const AttentionWeights& a) const override {
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) {
      const std::int64_t dimension = a.qkv.channels() / 3 / a.heads;
      const Tensor y(memory_, {a.qkv.rows(), a.heads * dimension}, a.qkv.dtype()),
          log_sum(memory_, {a.qkv.rows(), a.heads}, TypeOf<Lane<T>>::value);
      const Segments segments{a.segment};
      attention(
          AttentionForward{.qkv = a.qkv, .heads = a.heads, .segments = segments, .y = y, .log_sum = log_sum});
      elementwise<1>(
          memory_.stream(), a.weights.elements(), false,
          WeightsOp<T>{a.qkv.data<T>(), log_sum.data<Lane<T>>(), a.weights.data<float>(), a.heads,
                       a.segment.length, dimension, 1 / std::sqrt(static_cast<Lane<T>>(dimension))});
    });
  }
  void causal_attention(const CausalAttentionForward& a) const override {
    if (cudnn_runs(packed_causal(a), a.qkv.dtype(), a.log_sum.defined()))
      return cudnn_forward(packed_causal(a), a);
    const Tensor first = first_columns(a);
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) {
      for_sequences<T>(a, first, [&](const FlashShape<T>& shape) {
        flash_forward(memory_, shape, a.y.data<T>(), data_or_null<Lane<T>>(a.log_sum));
      });
    });
  }
  void causal_attention(const CausalAttentionBackward& a) const override {
    if (cudnn_runs(packed_causal(a), a.qkv.dtype(), true)) return cudnn_backward(packed_causal(a), a);
    const Tensor first = first_columns(a);
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) {
      const Tensor delta = delta_of<T>(a.dy, a.y, a.heads.queries);
      for_sequences<T>(a, first, [&](const FlashShape<T>& shape) {
        flash_backward(memory_, shape,
                       {a.dy.data<T>(), a.log_sum.data<Lane<T>>(), delta.data<Lane<T>>(),
                        a.dqkv.tensor.data<T>(), a.dqkv.accumulate});
      });
    });
  }
  void append(const AppendToCache& a) const override {
    const Tensor lengths = memory_.upload(a.lengths);
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) {
      const std::int64_t count = a.qkv.rows() / std::ssize(a.lengths);
      elementwise<1>(memory_.stream(), a.qkv.rows() * a.heads.keys * a.heads.dimension, false,
                     AppendOp<T>{a.qkv.data<T>(), reinterpret_cast<const std::int64_t*>(lengths.raw()),
                                 a.keys.data<T>(), a.values.data<T>(), count, a.heads.queries, a.heads.keys,
                                 a.keys.shape()[2], a.heads.dimension});
    });
  }
  void cached_attention(const CachedAttention& a) const override {
    const Tensor lengths = memory_.upload(a.lengths);
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) {
      FlashShape<T> shape = packed_shape<T>(a.qkv, a.heads.queries, a.heads.keys, a.heads.dimension);
      shape.k = a.keys.data<T>();
      shape.v = a.values.data<T>();
      shape.k_row = a.heads.dimension;
      shape.k_head = a.keys.shape()[2] * a.heads.dimension;
      shape.k_sequence = a.heads.keys * shape.k_head;
      shape.sequences = std::ssize(a.lengths);
      shape.length = a.qkv.rows() / shape.sequences;
      shape.causal = true;
      shape.before = reinterpret_cast<const std::int64_t*>(lengths.raw());
      flash_forward(memory_, shape, a.y.data<T>(), static_cast<Lane<T>*>(nullptr));
    });
  }

 private:
  /// What cuDNN is asked for: runs of sequences of one length, one run after another; none where sequences
  /// are of another make.
  template <class A>
  static std::vector<PackedAttention> packed(const A& a) {
    std::vector<PackedAttention> runs;
    for (const auto& [count, length] : a.segments)
      if (count * length > 0)
        runs.push_back({.sequences = count,
                        .length = length,
                        .queries = a.heads,
                        .keys = a.heads,
                        .dimension = a.y.channels() / a.heads});
    return runs;
  }
  template <class A>
  static std::vector<PackedAttention> packed_causal(const A& a) {
    if (a.first.defined() || !a.documents.empty() || a.qkv.elements() == 0) return {};
    return {{.sequences = a.qkv.rows() / a.length,
             .length = a.length,
             .queries = a.heads.queries,
             .keys = a.heads.keys,
             .dimension = a.heads.dimension,
             .is_causal = true}};
  }
  /// Decided by the shape alone, so that both directions read the same statistics.
  bool cudnn_runs(const std::vector<PackedAttention>& runs, DType type, bool trains) const {
    return type == DType::bf16 && !runs.empty() &&
           std::all_of(runs.begin(), runs.end(),
                       [&](const PackedAttention& run) { return cudnn_.supports(run, trains); });
  }
  template <class A>
  void cudnn_forward(const std::vector<PackedAttention>& runs, const A& a) const {
    std::int64_t row = 0;
    for (const PackedAttention& run : runs) {
      cudnn_.forward(run, a.qkv.template data<bf16>() + row * a.qkv.channels(),
                     a.y.template data<bf16>() + row * a.y.channels(),
                     a.log_sum.defined() ? a.log_sum.template data<float>() + row * run.queries : nullptr);
      row += run.sequences * run.length;
    }
  }
  template <class A>
  void cudnn_backward(const std::vector<PackedAttention>& runs, const A& a) const {
    // cuDNN overwrites: what is to be added to something is computed beside it.
    const Tensor& target = a.dqkv.tensor;
    const Tensor written = a.dqkv.accumulate ? Tensor(memory_, target.shape(), DType::bf16) : target;
    std::int64_t row = 0;
    for (const PackedAttention& run : runs) {
      cudnn_.backward(run, {.dy = a.dy.template data<bf16>() + row * a.dy.channels(),
                            .qkv = a.qkv.template data<bf16>() + row * a.qkv.channels(),
                            .y = a.y.template data<bf16>() + row * a.y.channels(),
                            .log_sum = a.log_sum.template data<float>() + row * run.queries,
                            .dqkv = written.data<bf16>() + row * written.channels()});
      row += run.sequences * run.length;
    }
    if (a.dqkv.accumulate)
      elementwise<1>(memory_.stream(), target.elements(), false,
                     AddOp{written.data<bf16>(), target.data<bf16>()});
  }
  /// Runs f for each segment, with its rows in `shape`.
  template <class T, class F>
  static void for_segments(const Segments& segments, FlashShape<T>& shape, const F& f) {
    std::int64_t row = 0;
    for (const auto& [count, length] : segments) {
      shape.sequences = count;
      shape.length = length;
      shape.first_row = row;
      shape.k_sequence = length * shape.k_row;
      f();
      row += count * length;
    }
  }
  /// The first column that each row sees of its own sequence: of its branch, where documents branch.
  template <class A>
  Tensor first_columns(const A& a) const {
    if (a.documents.empty()) return memory_.here(a.first);
    std::vector<std::int32_t> first(static_cast<std::size_t>(a.qkv.rows()));
    for (const Branching& document : a.documents)
      for (const Branching::Piece& piece : document.pieces())
        std::fill_n(first.begin() + piece.begin, piece.length,
                    static_cast<std::int32_t>(piece.begin - document.begin));
    const Tensor host(*make_host_memory(), {a.qkv.rows()}, DType::i32);
    std::copy(first.begin(), first.end(), host.data<std::int32_t>());
    return memory_.here(host);
  }
  /// Runs f on all sequences at once, or on one document after another.
  template <class T, class A, class F>
  static void for_sequences(const A& a, const Tensor& first, const F& f) {
    FlashShape<T> shape = packed_shape<T>(a.qkv, a.heads.queries, a.heads.keys, a.heads.dimension);
    shape.causal = true;
    shape.first = data_or_null<std::int32_t>(first);
    if (a.documents.empty()) {
      shape.sequences = a.length == 0 ? 0 : a.qkv.rows() / a.length;
      shape.length = a.length;
      shape.k_sequence = a.length * shape.k_row;
      f(shape);
    }
    for (const Branching& document : a.documents) {
      shape.first_row = document.begin;
      shape.length = document.rows();
      shape.trunk = document.trunk;
      f(shape);
    }
  }
  /// δ = rowsum(dy ∘ y) of each row and head.
  template <class T>
  Tensor delta_of(const Tensor& dy, const Tensor& y, std::int64_t heads) const {
    const Tensor delta(memory_, {y.rows(), heads}, TypeOf<Lane<T>>::value);
    elementwise<1>(memory_.stream(), delta.elements(), false,
                   DeltaOp<T>{dy.data<T>(), y.data<T>(), delta.data<Lane<T>>(), y.channels() / heads});
    return delta;
  }

  DeviceMemory& memory_;
  mutable CudnnAttention cudnn_;  // remembers plans
};

}  // namespace

std::unique_ptr<AttentionKernels> make_attention(DeviceMemory& memory) {
  return std::make_unique<CudaAttention>(memory);
}

}  // namespace bireme::cuda
