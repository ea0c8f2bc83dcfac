#pragma once

#include <type_traits>

#include "core/cuda/activations.cuh"
#include "core/cuda/vectors.cuh"
#include "core/ops/pointwise/pointwise.h"

namespace bireme::cuda {

template <Activation kActivation>
using Chosen = std::integral_constant<Activation, kActivation>;

/// Calls f(Chosen<activation>): the activation as a compile-time constant.
template <class F>
void dispatch_activation(Activation activation, F&& f) {
  using A = Activation;
  switch (activation) {
    case A::gelu: return f(Chosen<A::gelu>{});
    case A::silu: return f(Chosen<A::silu>{});
    case A::relu: return f(Chosen<A::relu>{});
    case A::squared_relu: return f(Chosen<A::squared_relu>{});
    case A::sigmoid: return f(Chosen<A::sigmoid>{});
    case A::selu: return f(Chosen<A::selu>{});
  }
}

template <Activation kActivation, class L>
__device__ __forceinline__ Activated<L> activate(L x) {
  if constexpr (kActivation == Activation::gelu) {
    return gelu(x);
  } else if constexpr (kActivation == Activation::silu) {
    return silu(x);
  } else if constexpr (kActivation == Activation::sigmoid) {
    const L s = sigmoid(x);
    return {s, s * (L{1} - s)};
  } else if constexpr (kActivation == Activation::selu) {  // Klambauer et al. 2017
    const L scale = static_cast<L>(1.0507009873554805),
            alpha = static_cast<L>(1.6732632423543772 * 1.0507009873554805);
    const L e = exp(x < 0 ? x : L{0});
    return x > 0 ? Activated<L>{scale * x, scale} : Activated<L>{alpha * (e - L{1}), alpha * e};
  } else {
    const L r = x > 0 ? x : L{0};
    if constexpr (kActivation == Activation::relu) return {r, x > 0 ? L{1} : L{0}};
    return {r * r, r + r};
  }
}

template <class T>
struct SigmoidGateOp {
  const T *r, *x;
  T* y;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const auto gate = load_pack<N>(r + i);
    auto v = load_pack<N>(x + i);
    for (int j = 0; j < N; ++j) v.v[j] *= sigmoid(gate.v[j]);
    store_pack<N>(y + i, v);
  }
};

template <class T>
struct SigmoidGateGradientOp {
  const T *dy, *r, *x;
  T *dr = nullptr, *dx = nullptr;
  bool add_r = false, add_x = false;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const auto g = load_pack<N>(dy + i), pre = load_pack<N>(r + i), v = load_pack<N>(x + i);
    Pack<Lane<T>, N> to_r, to_x;
    for (int j = 0; j < N; ++j) {
      const Lane<T> gate = sigmoid(pre.v[j]);
      to_x.v[j] = gate * g.v[j];
      to_r.v[j] = to_x.v[j] * v.v[j] * (1 - gate);
    }
    if (dx != nullptr) contribute_pack<N>(dx + i, to_x, add_x);
    if (dr != nullptr) contribute_pack<N>(dr + i, to_r, add_r);
  }
};

/// Entry i of y [R, width] comes from two places of its row of x [R, 2·width].
template <class T, Activation kActivation>
struct ActivationGateOp {
  const T* x;
  T* y;
  std::int64_t width;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const std::int64_t at = i / width * width + i;
    auto a = load_pack<N>(x + at);
    const auto b = load_pack<N>(x + at + width);
    for (int j = 0; j < N; ++j) a.v[j] = activate<kActivation>(a.v[j]).value * b.v[j];
    store_pack<N>(y + i, a);
  }
};

template <class T, Activation kActivation>
struct ActivationGateGradientOp {
  using NeedsRegisters = void;  // or ptxas holds some of its kernels to 32 and spills
  const T *dy, *x;
  T* dx;
  bool accumulate;
  std::int64_t width;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const std::int64_t at = i / width * width + i;
    const auto g = load_pack<N>(dy + i);
    auto a = load_pack<N>(x + at), b = load_pack<N>(x + at + width);
    for (int j = 0; j < N; ++j) {
      const Activated<Lane<T>> activated = activate<kActivation>(a.v[j]);
      a.v[j] = g.v[j] * b.v[j] * activated.slope;
      b.v[j] = g.v[j] * activated.value;
    }
    contribute_pack<N>(dx + at, a, accumulate);
    contribute_pack<N>(dx + at + width, b, accumulate);
  }
};

template <class T>
struct SkipGateOp {
  const T *h, *u;
  const Lane<T>* skip;
  const T* z;
  T* y;
  std::int64_t channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    auto sum = load_pack<N>(h + i);
    const auto v = load_pack<N>(u + i), gate = load_pack<N>(z + i);
    const auto s = load_pack<N>(skip + i % channels);
    for (int j = 0; j < N; ++j) sum.v[j] = (s.v[j] * v.v[j] + sum.v[j]) * silu(gate.v[j]).value;
    store_pack<N>(y + i, sum);
  }
};

/// Entry by entry; as column sums for dskip it does the entries on the way.
template <class T>
struct SkipGateGradientOp {
  using NeedsRegisters = void;  // or ptxas holds its sums to 32 and spills
  static constexpr int kSums = 1;
  const T *dy, *h, *u;
  const Lane<T>* skip;
  const T* z;
  std::int64_t channels;
  T *dh = nullptr, *du = nullptr, *dz = nullptr;
  bool add_h = false, add_u = false, add_z = false;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const auto g = load_pack<N>(dy + i), v = load_pack<N>(u + i), gate = load_pack<N>(z + i);
    const auto s = load_pack<N>(skip + i % channels);
    auto to_z = load_pack<N>(h + i);
    Pack<Lane<T>, N> to_h, to_u;
    for (int j = 0; j < N; ++j) {
      const Activated<Lane<T>> activated = silu(gate.v[j]);
      to_h.v[j] = g.v[j] * activated.value;
      to_u.v[j] = to_h.v[j] * s.v[j];
      to_z.v[j] = g.v[j] * (s.v[j] * v.v[j] + to_z.v[j]) * activated.slope;
    }
    if (dh != nullptr) contribute_pack<N>(dh + i, to_h, add_h);
    if (du != nullptr) contribute_pack<N>(du + i, to_u, add_u);
    if (dz != nullptr) contribute_pack<N>(dz + i, to_z, add_z);
  }
  __device__ void add(std::int64_t row, std::int64_t column, Lane<T>* sums) const {
    const std::int64_t i = row * channels + column;
    sums[0] += load(dy + i) * silu(load(z + i)).value * load(u + i);
    run<1>(i);
  }
};

}  // namespace bireme::cuda
