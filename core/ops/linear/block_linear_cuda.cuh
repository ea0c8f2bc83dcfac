#pragma once

#include "core/cuda/column_sums.cuh"
#include "core/cuda/elementwise.cuh"
#include "core/cuda/warp.cuh"
#include "core/ops/dispatch.h"
#include "core/ops/linear/linear_kernels.h"

namespace bireme::cuda {

/// Blocks of a few channels (four in xLSTM's projections): one thread an output, x and W from L1.
template <class T>
struct Blocks {
  using L = Lane<T>;
  const L* weight;  // [N, O, I], or [N, I, O]
  std::int64_t blocks, inputs, outputs, part, parts;
  bool transposed;
  L scale;

  __device__ L w(std::int64_t n, std::int64_t o, std::int64_t i) const {
    return transposed ? weight[(n * inputs + i) * outputs + o] : weight[(n * outputs + o) * inputs + i];
  }
  /// Where output o of block n of a row lies.
  __device__ std::int64_t place(std::int64_t row, std::int64_t n, std::int64_t o) const {
    return ((row * blocks + n) * parts + part) * outputs + o;
  }
};

template <class T, class A>
Blocks<T> blocks_of(const A& a) {
  const Shape& shape = a.weight.shape();
  return {.weight = a.weight.template data<Lane<T>>(),
          .blocks = shape[0],
          .inputs = a.transposed ? shape[1] : shape[2],
          .outputs = a.transposed ? shape[2] : shape[1],
          .part = a.part,
          .parts = a.parts,
          .transposed = a.transposed,
          .scale = static_cast<Lane<T>>(a.scale)};
}

template <class T, class Y>
struct BlockForwardOp {
  Blocks<T> b;
  const T* x;
  Y* y;

  template <int N>
  __device__ void run(std::int64_t index) const {
    static_assert(N == 1);
    const std::int64_t o = index % b.outputs, n = index / b.outputs % b.blocks,
                       row = index / b.outputs / b.blocks;
    Lane<T> sum = 0;
    for (std::int64_t i = 0; i < b.inputs; ++i)
      sum += b.w(n, o, i) * load(x + (row * b.blocks + n) * b.inputs + i);
    store(y + b.place(row, n, o), b.scale * sum);
  }
};

template <class T, class Y>
struct BlockInputOp {
  Blocks<T> b;
  const Y* dy;
  T* dx;
  bool accumulate;

  template <int N>
  __device__ void run(std::int64_t index) const {
    static_assert(N == 1);
    const std::int64_t i = index % b.inputs, n = index / b.inputs % b.blocks,
                       row = index / b.inputs / b.blocks;
    Lane<T> sum = 0;
    for (std::int64_t o = 0; o < b.outputs; ++o) sum += b.w(n, o, i) * load(dy + b.place(row, n, o));
    contribute(dx + index, b.scale * sum, accumulate);
  }
};

/// dW as sums over rows; a column is an entry of W.
template <class T, class Y>
struct BlockWeightOp {
  static constexpr int kSums = 1;
  Blocks<T> b;
  const Y* dy;
  const T* x;
  __device__ void add(std::int64_t row, std::int64_t column, Lane<T>* sums) const {
    const std::int64_t inner = b.transposed ? b.outputs : b.inputs,
                       outer = b.transposed ? b.inputs : b.outputs;
    const std::int64_t last = column % inner, middle = column / inner % outer, n = column / inner / outer;
    const std::int64_t o = b.transposed ? last : middle, i = b.transposed ? middle : last;
    sums[0] += b.scale * load(dy + b.place(row, n, o)) * load(x + (row * b.blocks + n) * b.inputs + i);
  }
};

inline void block_linear(DeviceMemory& memory, const BlockLinearForward& a) {
  dispatch_floats(a.x.dtype(), a.y.dtype(), [&]<class T, class Y>(Type<T>, Type<Y>) {
    const auto b = blocks_of<T>(a);
    elementwise<1>(memory.stream(), a.x.rows() * b.blocks * b.outputs, false,
                   BlockForwardOp<T, Y>{b, a.x.data<T>(), a.y.data<Y>()});
  });
}

inline void block_linear(DeviceMemory& memory, const BlockLinearBackward& a) {
  dispatch_floats(a.x.dtype(), a.dy.dtype(), [&]<class T, class Y>(Type<T>, Type<Y>) {
    const auto b = blocks_of<T>(a);
    if (a.dx)
      elementwise<1>(memory.stream(), a.x.elements(), false,
                     BlockInputOp<T, Y>{b, a.dy.data<Y>(), a.dx.tensor.data<T>(), a.dx.accumulate});
    if (!a.dweight) return;
    ColumnTargets<Lane<T>, 1> targets;
    targets.set(0, a.dweight);
    column_sums<BlockWeightOp<T, Y>, Lane<T>>(memory, {b, a.dy.data<Y>(), a.x.data<T>()}, a.x.rows(),
                                              a.weight.elements(), targets);
  });
}

/// Rows of A, then of B.
template <class L>
struct GateWeights {
  const L *a, *b;  // [H, W]
  std::int64_t heads, width, first;
  __device__ L at(std::int64_t gate, std::int64_t c) const {
    return gate < heads ? a[gate * width + first + c] : b[(gate - heads) * width + first + c];
  }
};

/// One warp a row and gate: there are few gates, and x stays in L1 between them.
template <class T>
__global__ void gate_products_kernel(GateWeights<Lane<T>> w, const T* x, Lane<T>* y, std::int64_t channels,
                                     bool accumulate) {
  const std::int64_t row = blockIdx.x,
                     gate = threadIdx.x / kWarp + std::int64_t{blockIdx.y} * (blockDim.x / kWarp);
  if (gate >= 2 * w.heads) return;
  Lane<T> sum = 0;
  for (std::int64_t c = threadIdx.x % kWarp; c < channels; c += kWarp)
    sum += load(x + row * channels + c) * w.at(gate, c);
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) contribute(y + row * 2 * w.heads + gate, sum, accumulate);
}

template <class T>
struct GateInputOp {
  GateWeights<Lane<T>> w;
  const Lane<T>* dy;
  T* dx;
  std::int64_t channels;
  bool accumulate;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t row = i / channels, c = i % channels;
    Lane<T> sum = 0;
    for (std::int64_t gate = 0; gate < 2 * w.heads; ++gate)
      sum += dy[row * 2 * w.heads + gate] * w.at(gate, c);
    contribute(dx + i, sum, accumulate);
  }
};

/// A column is a pair of gate and channel.
template <class T>
struct GateWeightOp {
  static constexpr int kSums = 1;
  const Lane<T>* dy;
  const T* x;
  std::int64_t gates, channels;
  __device__ void add(std::int64_t row, std::int64_t column, Lane<T>* sums) const {
    sums[0] += dy[row * gates + column / channels] * load(x + row * channels + column % channels);
  }
};

/// The sums of one input's columns into their place in A and B.
template <class L>
struct GatePlaceOp {
  const L* sums;  // [2·H, C]
  L *da, *db;     // or null
  std::int64_t heads, width, first, channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t gate = i / channels, c = i % channels;
    L* to = gate < heads ? da : db;
    if (to != nullptr) to[gate % heads * width + first + c] += sums[i];
  }
};

template <class T, class A>
GateWeights<Lane<T>> gate_weights(const A& a) {
  return {a.a.template data<Lane<T>>(), a.b.template data<Lane<T>>(), a.a.rows(), a.a.channels(), a.first};
}

inline void gate_products(DeviceMemory& memory, const GateProductsForward& a) {
  dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
    constexpr int kWarps = 8;
    const auto w = gate_weights<T>(a);
    launch(memory.stream(),
           {{to_unsigned(a.x.rows()), to_unsigned(ceil_div(2 * w.heads, kWarps))}, {kWarps * kWarp}},
           gate_products_kernel<T>, w, a.x.data<T>(), a.y.data<Lane<T>>(), a.x.channels(), a.accumulate);
  });
}

inline void gate_products(DeviceMemory& memory, const GateProductsBackward& a) {
  dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
    using L = Lane<T>;
    const auto w = gate_weights<T>(a);
    const std::int64_t channels = a.x.channels();
    if (a.dx)
      elementwise<1>(memory.stream(), a.x.elements(), false,
                     GateInputOp<T>{w, a.dy.data<L>(), a.dx.tensor.data<T>(), channels, a.dx.accumulate});
    if (!a.da.defined() && !a.db.defined()) return;
    const Tensor sums(memory, {2 * w.heads, channels}, TypeOf<L>::value);
    ColumnTargets<L, 1> targets;
    targets.set(0, {sums, false});
    column_sums<GateWeightOp<T>, L>(memory, {a.dy.data<L>(), a.x.data<T>(), 2 * w.heads, channels},
                                    a.x.rows(), 2 * w.heads * channels, targets);
    elementwise<1>(memory.stream(), sums.elements(), false,
                   GatePlaceOp<L>{sums.data<L>(), data_or_null<L>(a.da), data_or_null<L>(a.db), w.heads,
                                  w.width, w.first, channels});
  });
}

template <class L>
struct CapGatesOp {
  const L *g, *a, *b;
  L* y;
  std::int64_t heads, all, first;
  L cap;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t row = i / (2 * heads), j = i % (2 * heads), half = j / heads, head = j % heads;
    const L x = g[(2 * row + half) * all + first + head] + (half == 0 ? a : b)[head];
    y[i] = cap > 0 ? cap * tanh(x / cap) : x;
  }
};

/// The slope of the cap at its result, times dy.
template <class L>
struct CapSlope {
  const L *dy, *y;
  L cap;
  __device__ L at(std::int64_t i) const { return dy[i] * (cap > 0 ? 1 - y[i] / cap * (y[i] / cap) : L{1}); }
};

/// Entry by entry of dg, most of which may lie outside this part, and as sums for both biases.
template <class L>
struct CapInputOp {
  static constexpr int kSums = 1;
  CapSlope<L> slope;
  L* dg;
  bool accumulate;
  std::int64_t heads, all, first;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t row = i / (2 * all), half = i / all % 2, head = i % all - first;
    const bool inside = head >= 0 && head < heads;
    contribute(dg + i, inside ? slope.at((2 * row + half) * heads + head) : L{0}, accumulate);
  }
  __device__ void add(std::int64_t row, std::int64_t column, L* sums) const {
    sums[0] += slope.at(row * 2 * heads + first + column);
  }
};

inline void cap_gates(DeviceMemory& memory, const CapGatesForward& a) {
  dispatch_lane(a.g.dtype(), [&]<class L>(Type<L>) {
    elementwise<1>(memory.stream(), a.y.elements(), false,
                   CapGatesOp<L>{a.g.data<L>(), a.a.data<L>(), a.b.data<L>(), a.y.data<L>(), a.a.elements(),
                                 a.g.channels() / 2, a.first, static_cast<L>(a.cap)});
  });
}

inline void cap_gates(DeviceMemory& memory, const CapGatesBackward& a) {
  dispatch_lane(a.dy.dtype(), [&]<class L>(Type<L>) {
    const std::int64_t heads = a.dy.channels() / 2;
    const CapSlope<L> slope{a.dy.data<L>(), a.y.data<L>(), static_cast<L>(a.cap)};
    const auto sums = [&](std::int64_t half, const Target& to) {
      if (!to) return;
      ColumnTargets<L, 1> targets;
      targets.set(0, to);
      column_sums<CapInputOp<L>, L>(memory, {slope, nullptr, false, heads, heads, half * heads}, a.dy.rows(),
                                    heads, targets);
    };
    sums(0, a.da);
    sums(1, a.db);
    if (a.dg)
      elementwise<1>(memory.stream(), a.dg.tensor.elements(), false,
                     CapInputOp<L>{slope, a.dg.tensor.data<L>(), a.dg.accumulate, heads,
                                   a.dg.tensor.channels() / 2, a.first});
  });
}

}  // namespace bireme::cuda
