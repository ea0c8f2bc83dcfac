#pragma once

#include "core/cuda/column_sums.cuh"
#include "core/cuda/elementwise.cuh"
#include "core/ops/norm/norm_kernels.h"

namespace bireme::cuda {

/// Mean and reciprocal deviation of a channel, from the sums over all ranks.
template <class L>
struct ChannelStatistics {
  const L *sums, *squares;  // [C + 1], [C]
  std::int64_t channels;
  L epsilon;

  __device__ L count() const { return sums[channels]; }
  __device__ L mean(std::int64_t c) const { return sums[c] / count(); }
  __device__ L reciprocal(std::int64_t c) const { return L{1} / sqrt(squares[c] / count() + epsilon); }
};

template <class L>
ChannelStatistics<L> statistics_of(const Tensor& sums, const Tensor& squares, float epsilon) {
  return {sums.data<L>(), squares.data<L>(), squares.elements(), static_cast<L>(epsilon)};
}

template <class T>
struct SquaresOp {
  static constexpr int kSums = 1;
  const T* x;
  const Lane<T>* sums;
  std::int64_t channels;
  __device__ void add(std::int64_t row, std::int64_t c, Lane<T>* total) const {
    const Lane<T> deviation = load(x + row * channels + c) - sums[c] / sums[channels];
    total[0] += deviation * deviation;
  }
};

template <class T>
void batch_sums(DeviceMemory& memory, const BatchSums& a) {
  sum_columns<T>(memory, a.x.data<T>(), a.x.rows(), a.x.channels(),
                 {a.sums.view(0, {a.x.channels()}), false});
  memory.fill(a.sums.view(a.x.channels(), {1}), static_cast<double>(a.x.rows()));
}

template <class T>
void batch_squares(DeviceMemory& memory, const BatchSquares& a) {
  ColumnTargets<Lane<T>, 1> targets;
  targets.set(0, {a.squares, false});
  column_sums<SquaresOp<T>, Lane<T>>(memory, {a.x.data<T>(), a.sums.data<Lane<T>>(), a.x.channels()},
                                     a.x.rows(), a.x.channels(), targets);
}

template <class T>
struct BatchNormOp {
  const T* x;
  T* y;
  const Lane<T>*gain, *bias;
  ChannelStatistics<Lane<T>> of;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t c = i % of.channels;
    store(y + i, (load(x + i) - of.mean(c)) * of.reciprocal(c) * gain[c] + bias[c]);
  }
};

/// Running statistics move towards mean and unbiased variance.
template <class L>
struct RunningOp {
  ChannelStatistics<L> of;
  float *mean, *variance;
  double momentum;

  template <int N>
  __device__ void run(std::int64_t c) const {
    static_assert(N == 1);
    mean[c] = static_cast<float>((1 - momentum) * mean[c] +
                                 momentum * (static_cast<double>(of.sums[c]) / of.count()));
    variance[c] = static_cast<float>((1 - momentum) * variance[c] +
                                     momentum * (static_cast<double>(of.squares[c]) / (of.count() - 1)));
  }
};

template <class T>
void batch_norm_forward(DeviceMemory& memory, const BatchNormForward& a) {
  using L = Lane<T>;
  const auto of = statistics_of<L>(a.sums, a.squares, a.epsilon);
  elementwise<1>(memory.stream(), a.x.elements(), false,
                 BatchNormOp<T>{a.x.data<T>(), a.y.data<T>(), a.gain.data<L>(), a.bias.data<L>(), of});
  elementwise<1>(
      memory.stream(), of.channels, false,
      RunningOp<L>{of, a.running_mean.data<float>(), a.running_variance.data<float>(), a.momentum});
}

template <class T>
struct BatchTotalsOp {
  static constexpr int kSums = 2;
  const T *dy, *x;
  ChannelStatistics<Lane<T>> of;
  __device__ void add(std::int64_t row, std::int64_t c, Lane<T>* sums) const {
    const std::int64_t i = row * of.channels + c;
    const Lane<T> g = load(dy + i);
    sums[0] += g;
    sums[1] += g * ((load(x + i) - of.mean(c)) * of.reciprocal(c));
  }
};

template <class T>
void batch_norm_totals(DeviceMemory& memory, const BatchNormTotals& a) {
  const std::int64_t channels = a.x.channels();
  const auto of = statistics_of<Lane<T>>(a.sums, a.squares, a.epsilon);
  ColumnTargets<Lane<T>, 2> targets;
  targets.set(0, {a.totals.view(0, {channels}), false});
  targets.set(1, {a.totals.view(channels, {channels}), false});
  column_sums<BatchTotalsOp<T>, Lane<T>>(memory, {a.dy.data<T>(), a.x.data<T>(), of}, a.x.rows(), channels,
                                         targets);
  const auto hand_on = [&](const Target& to, std::int64_t offset) {
    if (to) sum_columns<Lane<T>>(memory, a.totals.data<Lane<T>>() + offset, 1, channels, to);
  };
  hand_on(a.dbias, 0);
  hand_on(a.dgain, channels);
}

template <class T>
struct BatchNormBackwardOp {
  const T *dy, *x;
  T* dx;
  bool accumulate;
  const Lane<T>*gain, *totals;
  ChannelStatistics<Lane<T>> of;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t c = i % of.channels;
    const Lane<T> reciprocal = of.reciprocal(c), normal = (load(x + i) - of.mean(c)) * reciprocal;
    const Lane<T> means = (totals[c] + normal * totals[of.channels + c]) / of.count();
    contribute(dx + i, gain[c] * reciprocal * (load(dy + i) - means), accumulate);
  }
};

template <class T>
void batch_norm_backward(DeviceMemory& memory, const BatchNormBackward& a) {
  using L = Lane<T>;
  elementwise<1>(memory.stream(), a.x.elements(), false,
                 BatchNormBackwardOp<T>{a.dy.data<T>(), a.x.data<T>(), a.dx.tensor.data<T>(), a.dx.accumulate,
                                        a.gain.data<L>(), a.totals.data<L>(),
                                        statistics_of<L>(a.sums, a.squares, a.epsilon)});
}

}  // namespace bireme::cuda
