#pragma once

#include "core/base/error.h"
#include "core/cuda/activations.cuh"
#include "core/cuda/column_sums.cuh"
#include "core/cuda/elementwise.cuh"
#include "core/ops/convolution/convolution_kernels.h"
#include "core/ops/dispatch.h"

namespace bireme::cuda {

/// What a convolution reads: rows of x, before them those of an earlier call, and before those nothing.
template <class T>
struct PastRows {
  const T *x, *before;
  const std::uint8_t* starts;
  const Lane<T>*weight, *bias;  // [C, K], the last tap is the row itself
  std::int64_t time, channels, taps;

  /// How many rows before row r belong to its document, at most taps - 1.
  __device__ std::int64_t reach(std::int64_t r) const {
    const std::int64_t t = r % time;
    for (std::int64_t back = 0; back < taps - 1; ++back) {
      if (starts != nullptr && back <= t && starts[r - back] != 0) return back;
      if (back == t && before == nullptr) return back;
    }
    return taps - 1;
  }
  __device__ Lane<T> at(std::int64_t r, std::int64_t back, std::int64_t c) const {
    const std::int64_t t = r % time;
    if (back <= t) return load(x + (r - back) * channels + c);
    return load(before + (r / time * (taps - 1) + (taps - 1 - (back - t))) * channels + c);
  }
  __device__ Lane<T> tap(std::int64_t back, std::int64_t c) const {
    return weight[c * taps + taps - 1 - back];
  }
  /// The result before its activation.
  __device__ Lane<T> sum(std::int64_t r, std::int64_t c) const {
    const std::int64_t most = reach(r);
    Lane<T> total = bias[c];
    for (std::int64_t back = 0; back <= most; ++back) total += tap(back, c) * at(r, back, c);
    return total;
  }
};

template <class T, class A>
PastRows<T> past_rows(const A& a, const Tensor& starts) {
  return {.x = a.x.template data<T>(),
          .before = data_or_null<T>(a.before),
          .starts = data_or_null<std::uint8_t>(starts),
          .weight = a.weight.template data<Lane<T>>(),
          .bias = a.bias.template data<Lane<T>>(),
          .time = a.x.rows() / a.sequences,
          .channels = a.x.channels(),
          .taps = a.weight.channels()};
}

template <class T>
struct CausalForwardOp {
  using NeedsRegisters = void;  // or ptxas holds the kernel to 40 and spills
  PastRows<T> past;
  T* y;
  bool is_silu;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const Lane<T> sum = past.sum(i / past.channels, i % past.channels);
    store(y + i, is_silu ? silu(sum).value : sum);
  }
};

/// p = dy ∘ act'(y before act), kept in full precision for the two ops below.
template <class T>
struct CausalSlopeOp {
  PastRows<T> past;
  const T* dy;
  Lane<T>* p;
  bool is_silu;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const Lane<T> g = load(dy + i);
    p[i] = is_silu ? g * silu(past.sum(i / past.channels, i % past.channels)).slope : g;
  }
};

/// dx[t] = Σ over the rows t + back of its document that see row t.
template <class T>
struct CausalInputOp {
  PastRows<T> past;
  const Lane<T>* p;
  T* dx;
  bool accumulate;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t r = i / past.channels, c = i % past.channels, t = r % past.time;
    Lane<T> sum = 0;
    for (std::int64_t back = 0; back < past.taps && t + back < past.time; ++back) {
      if (past.starts != nullptr && back > 0 && past.starts[r + back] != 0) break;
      sum += past.tap(back, c) * p[(r + back) * past.channels + c];
    }
    contribute(dx + i, sum, accumulate);
  }
};

/// The gradient of the K - 1 rows before each sequence.
template <class T>
struct CausalBeforeOp {
  PastRows<T> past;
  const Lane<T>* p;
  T* dbefore;
  bool accumulate;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t kept = past.taps - 1, c = i % past.channels, place = i / past.channels % kept;
    const std::int64_t first = i / past.channels / kept * past.time;
    Lane<T> sum = 0;
    for (std::int64_t t = 0; t <= place && t < past.time; ++t) {
      const std::int64_t back = t + kept - place;
      if (past.reach(first + t) >= back) sum += past.tap(back, c) * p[(first + t) * past.channels + c];
    }
    contribute(dbefore + i, sum, accumulate);
  }
};

/// dW of one tap, and dbias with the last.
template <class T>
struct CausalTapOp {
  static constexpr int kSums = 1;
  PastRows<T> past;
  const Lane<T>* p;
  __device__ void add(std::int64_t r, std::int64_t column, Lane<T>* sums) const {
    const std::int64_t c = column / past.taps, back = past.taps - 1 - column % past.taps;
    if (back <= past.reach(r)) sums[0] += p[r * past.channels + c] * past.at(r, back, c);
  }
};

inline void causal_convolution(DeviceMemory& memory, const CausalConvolutionForward& a) {
  const Tensor starts = memory.here(a.starts);
  dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
    elementwise<1>(memory.stream(), a.x.elements(), false,
                   CausalForwardOp<T>{past_rows<T>(a, starts), a.y.data<T>(), a.silu});
  });
}

inline void causal_convolution(DeviceMemory& memory, const CausalConvolutionBackward& a) {
  const Tensor starts = memory.here(a.starts);
  dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
    using L = Lane<T>;
    const auto past = past_rows<T>(a, starts);
    const Tensor slopes(memory, a.x.shape(), TypeOf<L>::value);
    const L* p = slopes.data<L>();
    elementwise<1>(memory.stream(), a.x.elements(), false,
                   CausalSlopeOp<T>{past, a.dy.data<T>(), slopes.data<L>(), a.silu});
    if (a.dweight) {
      ColumnTargets<L, 1> targets;
      targets.set(0, a.dweight);
      column_sums<CausalTapOp<T>, L>(memory, {past, p}, a.x.rows(), past.channels * past.taps, targets);
    }
    sum_columns<L>(memory, p, a.x.rows(), past.channels, a.dbias);
    if (a.dbefore)
      elementwise<1>(memory.stream(), a.dbefore.tensor.elements(), false,
                     CausalBeforeOp<T>{past, p, a.dbefore.tensor.data<T>(), a.dbefore.accumulate});
    if (a.dx)
      elementwise<1>(memory.stream(), a.x.elements(), false,
                     CausalInputOp<T>{past, p, a.dx.tensor.data<T>(), a.dx.accumulate});
  });
}

}  // namespace bireme::cuda
