#include <algorithm>
#include <vector>

#include "core/cuda/column_sums.cuh"
#include "core/cuda/cuda_kernels.h"
#include "core/cuda/elementwise.cuh"
#include "core/ops/dispatch.h"
#include "core/ops/embedding/embedding_kernels.h"

namespace bireme::cuda {

namespace {

template <class T>
struct LookUpOp {
  const std::int32_t* tokens;
  const T* table;
  T* y;
  std::int64_t first, held, channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const std::int64_t row = tokens[i / channels] - first;
    Pack<Lane<T>, N> v{};
    if (row >= 0 && row < held) v = load_pack<N>(table + row * channels + i % channels);
    store_pack<N>(y + i, v);
  }
};

constexpr int kScatterThreads = 128;

/// Rows of dy by token: those of token tokens[t] are order[starts[t]] … order[starts[t + 1] - 1].
struct RowsByToken {
  const std::int32_t *tokens, *starts, *order;
};

/// One block a token, one thread a channel: rows in order, so nothing is added to by two threads.
template <class T>
__global__ void __launch_bounds__(kScatterThreads)
    scatter_kernel(RowsByToken rows, const T* dy, T* table, std::int64_t channels) {
  const std::int32_t begin = rows.starts[blockIdx.x], end = rows.starts[blockIdx.x + 1];
  T* to = table + rows.tokens[blockIdx.x] * channels;
  for (std::int64_t c = threadIdx.x; c < channels; c += kScatterThreads) {
    Lane<T> sum = load(to + c);
    for (std::int32_t i = begin; i < end; ++i) sum += load(dy + rows.order[i] * channels + c);
    store(to + c, sum);
  }
}

/// The rows of each token of this part of the vocabulary, found on the host while the GPU works on what came
/// before.
struct SortedTokens {
  std::vector<std::int32_t> tokens, starts, order;

  SortedTokens(const Tensor& given, std::int64_t first, std::int64_t held) {
    const Tensor all = on_host(given);
    std::vector<std::uint64_t> positions;
    for (std::int64_t r = 0; r < all.elements(); ++r) {
      const std::int64_t row = all.data<std::int32_t>()[r] - first;
      if (row >= 0 && row < held)
        positions.push_back(static_cast<std::uint64_t>(row) << 32 | static_cast<std::uint64_t>(r));
    }
    std::sort(positions.begin(), positions.end());
    for (const std::uint64_t position : positions) {
      const auto token = static_cast<std::int32_t>(position >> 32);
      if (tokens.empty() || tokens.back() != token) {
        tokens.push_back(token);
        starts.push_back(static_cast<std::int32_t>(order.size()));
      }
      order.push_back(static_cast<std::int32_t>(position & 0xffffffffU));
    }
    starts.push_back(static_cast<std::int32_t>(order.size()));
  }
};

/// to[o, rest] (+)= Σ_i w(o, i) · from[i, rest], one axis of a grid at a time: a thread an output. `lines`
/// axes lie before it.
template <class L>
struct ResizeAxisOp {
  const L *from, *weights;
  L* to;
  std::int64_t outputs, inputs, rest;
  bool transposed, accumulate;

  template <int N>
  __device__ void run(std::int64_t index) const {
    static_assert(N == 1);
    const std::int64_t r = index % rest, o = index / rest % outputs, line = index / rest / outputs;
    L sum = 0;
    for (std::int64_t i = 0; i < inputs; ++i)
      sum += (transposed ? weights[i * outputs + o] : weights[o * inputs + i]) *
             from[(line * inputs + i) * rest + r];
    contribute(to + index, sum, accumulate);
  }
};

/// One segment of pictures: y[0] = class_token + positions[0], y[i] = patches[i - 1] + positions[i].
template <class P>
struct AssembleOp {
  const P* patches;
  const Lane<P>*class_token, *positions;
  Lane<P>* y;
  std::int64_t length, channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const std::int64_t c = i % channels, token = i / channels % length, picture = i / channels / length;
    auto sum = load_pack<N>(positions + token * channels + c);
    const auto v = token == 0 ? load_pack<N>(class_token + c)
                              : load_pack<N>(patches + (picture * (length - 1) + token - 1) * channels + c);
    for (int j = 0; j < N; ++j) sum.v[j] = v.v[j] + sum.v[j];
    store_pack<N>(y + i, sum);
  }
};

template <class P>
struct PatchGradientOp {
  const Lane<P>* dy;
  P* dpatches;
  std::int64_t length, channels;
  bool accumulate;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const std::int64_t c = i % channels, patch = i / channels % (length - 1),
                       picture = i / channels / (length - 1);
    contribute_pack<N>(dpatches + i, load_pack<N>(dy + (picture * length + patch + 1) * channels + c),
                       accumulate);
  }
};

/// Sums over pictures, which are `stride` numbers apart.
template <class L>
struct PictureOp {
  static constexpr int kSums = 1;
  const L* dy;
  std::int64_t stride;
  __device__ void add(std::int64_t picture, std::int64_t column, L* sums) const {
    sums[0] += dy[picture * stride + column];
  }
};

template <class T>
struct SelectOp {
  const T* x;
  const std::int64_t* rows;
  T* y;
  std::int64_t channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    store_pack<N>(y + i, load_pack<N>(x + rows[i / channels] * channels + i % channels));
  }
};

template <class T>
struct SelectGradientOp {
  const T* dy;
  const std::int64_t* rows;
  T* dx;
  std::int64_t channels;
  bool accumulate;

  template <int N>
  __device__ void run(std::int64_t i) const {
    contribute_pack<N>(dx + rows[i / channels] * channels + i % channels, load_pack<N>(dy + i), accumulate);
  }
};

class CudaEmbedding final : public EmbeddingKernels {
 public:
  explicit CudaEmbedding(DeviceMemory& memory) : memory_(memory) {}

  void look_up(const LookUpForward& a) const override {
    const Tensor tokens = memory_.here(a.tokens);
    dispatch_float(a.table.dtype(), [&]<class T>(Type<T>) {
      const LookUpOp<T> op{
          tokens.data<std::int32_t>(), a.table.data<T>(), a.y.data<T>(), a.first, a.table.rows(),
          a.table.channels()};
      run<kWidth<T>>(a.y.elements(), op.channels, op, op.table, op.y);
    });
  }
  void look_up(const LookUpBackward& a) const override {
    if (!a.dtable.accumulate) memory_.fill(a.dtable.tensor, 0);
    const SortedTokens sorted(a.tokens, a.first, a.dtable.tensor.rows());
    if (sorted.tokens.empty()) return;
    const auto upload = [&](const std::vector<std::int32_t>& v) {
      return memory_.upload(std::span<const std::int32_t>(v));
    };
    const Tensor tokens = upload(sorted.tokens), starts = upload(sorted.starts), order = upload(sorted.order);
    const auto numbers = [](const Tensor& t) { return reinterpret_cast<const std::int32_t*>(t.raw()); };
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      launch(memory_.stream(), {{to_unsigned(std::ssize(sorted.tokens))}, {kScatterThreads}},
             scatter_kernel<T>, RowsByToken{numbers(tokens), numbers(starts), numbers(order)}, a.dy.data<T>(),
             a.dtable.tensor.data<T>(), a.dy.channels());
    });
  }

  void resize_grid(const ResizeGridForward& a) const override {
    resize(a.grid, a.row_weights, a.column_weights, false, {a.y, false});
  }
  void resize_grid(const ResizeGridBackward& a) const override {
    resize(a.dy, a.row_weights, a.column_weights, true, a.dgrid);
  }

  void assemble_tokens(const AssembleTokensForward& a) const override {
    dispatch_float(a.patches.dtype(), [&]<class P>(Type<P>) {
      using L = Lane<P>;
      const std::int64_t channels = a.y.channels();
      std::int64_t row = 0, picture = 0;
      for (std::size_t s = 0; s < a.segments.size(); ++s) {
        const auto [count, length] = a.segments[s];
        const AssembleOp<P> op{a.patches.data<P>() + (row - picture) * channels,
                               a.class_token.data<L>(),
                               a.positions[s].data<L>(),
                               a.y.data<L>() + row * channels,
                               length,
                               channels};
        run<kWidth<P>>(count * length * channels, channels, op, op.patches, op.class_token, op.positions,
                       op.y);
        row += count * length;
        picture += count;
      }
    });
  }
  void assemble_tokens(const AssembleTokensBackward& a) const override {
    const DType type = a.dpatches ? a.dpatches.tensor.dtype() : a.dy.dtype();
    dispatch_float(type, [&]<class P>(Type<P>) { assemble_backward<P>(a); });
  }

  void select_rows(const SelectRowsForward& a) const override {
    const Tensor rows = memory_.upload(a.rows);
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      const SelectOp<T> op{a.x.data<T>(), reinterpret_cast<const std::int64_t*>(rows.raw()), a.y.data<T>(),
                           a.x.channels()};
      run<kWidth<T>>(a.y.elements(), op.channels, op, op.x, op.y);
    });
  }
  void select_rows(const SelectRowsBackward& a) const override {
    if (!a.dx.accumulate) memory_.fill(a.dx.tensor, 0);
    const Tensor rows = memory_.upload(a.rows);
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      const SelectGradientOp<T> op{a.dy.data<T>(), reinterpret_cast<const std::int64_t*>(rows.raw()),
                                   a.dx.tensor.data<T>(), a.dy.channels(), a.dx.accumulate};
      run<kWidth<T>>(a.dy.elements(), op.channels, op, op.dy, op.dx);
    });
  }

 private:
  template <int Width, class Op, class... T>
  void run(std::int64_t elements, std::int64_t row, const Op& op, const T*... addresses) const {
    elementwise<Width>(memory_.stream(), elements, fits_packs(row, Width, addresses...), op);
  }

  /// Columns first, then rows; the weights are few and stay in L1.
  void resize(const Tensor& from, const Tensor& row_weights, const Tensor& column_weights, bool transposed,
              const Target& to) const {
    const auto sizes = [&](const Tensor& w) {
      const std::int64_t a = w.shape().front(), b = w.shape().back();
      return transposed ? std::pair{b, a} : std::pair{a, b};  // outputs, inputs
    };
    const auto [rows, from_rows] = sizes(row_weights);
    const auto [columns, from_columns] = sizes(column_weights);
    const std::int64_t channels = from.channels();
    dispatch_lane(from.dtype(), [&, rows = rows, from_rows = from_rows, columns = columns,
                                 from_columns = from_columns]<class L>(Type<L>) {
      const Tensor between(memory_, {from_rows, columns, channels}, TypeOf<L>::value);
      elementwise<1>(memory_.stream(), between.elements(), false,
                     ResizeAxisOp<L>{from.data<L>(), column_weights.data<L>(), between.data<L>(), columns,
                                     from_columns, channels, transposed, false});
      elementwise<1>(memory_.stream(), rows * columns * channels, false,
                     ResizeAxisOp<L>{between.data<L>(), row_weights.data<L>(), to.tensor.data<L>(), rows,
                                     from_rows, columns * channels, transposed, to.accumulate});
    });
  }

  template <class P>
  void assemble_backward(const AssembleTokensBackward& a) const {
    using L = Lane<P>;
    const std::int64_t channels = a.dy.channels();
    std::int64_t row = 0, picture = 0;
    for (std::size_t s = 0; s < a.segments.size(); ++s) {
      const auto [count, length] = a.segments[s];
      const L* dy = a.dy.data<L>() + row * channels;
      const auto sum = [&, count = count, length = length](std::int64_t columns, const Target& to) {
        ColumnTargets<L, 1> targets;
        targets.set(0, to);
        if (to) column_sums<PictureOp<L>, L>(memory_, {dy, length * channels}, count, columns, targets);
      };
      sum(length * channels, a.dpositions[s]);
      sum(channels, {a.dclass_token.tensor, a.dclass_token.accumulate || s > 0});
      if (a.dpatches) {
        const PatchGradientOp<P> op{dy, a.dpatches.tensor.data<P>() + (row - picture) * channels, length,
                                    channels, a.dpatches.accumulate};
        run<kWidth<P>>(count * (length - 1) * channels, channels, op, op.dy, op.dpatches);
      }
      row += count * length;
      picture += count;
    }
  }

  DeviceMemory& memory_;
};

}  // namespace

std::unique_ptr<EmbeddingKernels> make_embedding(DeviceMemory& memory) {
  return std::make_unique<CudaEmbedding>(memory);
}

}  // namespace bireme::cuda
