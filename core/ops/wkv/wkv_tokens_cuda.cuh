#pragma once

#include "core/cuda/activations.cuh"
#include "core/cuda/vectors.cuh"
#include "core/ops/wkv/wkv_kernels.h"

namespace bireme::cuda {

inline constexpr int kWkvThreads = 64;      // channels of a block, one a thread; few, as grids are small
inline constexpr double kWkvEmpty = -1e38;  // exponent of a sum of nothing
inline constexpr double kWkvVanish =
    -1e30;  // log-decay at a document start; also the strongest decay of a channel

/// w = -e^{time_decay}, and not beyond what vanishes at once: products with it stay finite.
template <class L>
__device__ __forceinline__ L wkv_decay(L time_decay) {
  const L w = -exp(time_decay), strongest = static_cast<L>(kWkvVanish);
  return w > strongest ? w : strongest;
}

/// Sums in the form (a, b)·e^p of one channel: the state on the way forward, its adjoint on the way back.
template <class L>
struct WkvSum {
  L a = 0, b = 0, p = static_cast<L>(kWkvEmpty);
};

/// Those of [sequence, channel], or null.
template <class L>
struct WkvSums {
  L *a, *b, *p;
};

/// Weights of two terms whose exponents are x and y, relative to the larger one: one of them is 1.
template <class L>
struct WkvWeights {
  L x, y, exponent;
};
template <class L>
__device__ __forceinline__ WkvWeights<L> wkv_weights(L x, L y) {
  const L smaller = exp(x < y ? x - y : y - x);
  return x >= y ? WkvWeights<L>{L{1}, smaller, x} : WkvWeights<L>{smaller, L{1}, y};
}

template <class T>
struct WkvTokens {
  using L = Lane<T>;
  const T *r, *k, *v;
  const L *time_decay, *time_first;
  const std::uint8_t* starts;
  std::int64_t sequences, length, chunks, channels;

  __device__ std::int64_t begin(std::int64_t chunk) const { return chunk * kWkvChunk; }
  __device__ std::int64_t end(std::int64_t chunk) const {
    return (chunk + 1) * kWkvChunk < length ? (chunk + 1) * kWkvChunk : length;
  }
  __device__ std::int64_t at(std::int64_t b, std::int64_t t, std::int64_t c) const {
    return (b * length + t) * channels + c;
  }
  __device__ bool is_start(std::int64_t b, std::int64_t t) const {
    return starts != nullptr && starts[b * length + t] != 0;
  }
  __device__ bool has_start(std::int64_t b, std::int64_t chunk) const {
    for (std::int64_t t = begin(chunk); t < end(chunk); ++t)
      if (is_start(b, t)) return true;
    return false;
  }
  /// In a tensor [B, chunks, 3, C].
  __device__ WkvSum<L> read(const L* boundaries, std::int64_t b, std::int64_t chunk, std::int64_t c) const {
    const L* line = boundaries + (b * chunks + chunk) * 3 * channels + c;
    return {line[0], line[channels], line[2 * channels]};
  }
  __device__ void write(L* boundaries, std::int64_t b, std::int64_t chunk, std::int64_t c,
                        const WkvSum<L>& sum) const {
    L* line = boundaries + (b * chunks + chunk) * 3 * channels + c;
    line[0] = sum.a, line[channels] = sum.b, line[2 * channels] = sum.p;
  }
};

template <class L>
__device__ __forceinline__ void wkv_advance(WkvSum<L>& state, L w, L k, L v) {
  const WkvWeights<L> next = wkv_weights(state.p + w, k);
  state = {next.x * state.a + next.y * v, next.x * state.b + next.y, next.exponent};
}

/// The element of each chunk: its state when it starts empty.
template <class T>
__global__ void __launch_bounds__(kWkvThreads) wkv_reduce_kernel(WkvTokens<T> s, Lane<T>* boundaries) {
  using L = Lane<T>;
  const std::int64_t c = std::int64_t{blockIdx.x} * kWkvThreads + threadIdx.x, chunk = blockIdx.y,
                     b = blockIdx.z;
  if (c >= s.channels) return;
  const L w = wkv_decay(s.time_decay[c]);
  WkvSum<L> state;
  for (std::int64_t t = s.begin(chunk); t < s.end(chunk); ++t) {
    if (s.is_start(b, t)) state = {};
    wkv_advance(state, w, load(s.k + s.at(b, t, c)), load(s.v + s.at(b, t, c)));
  }
  s.write(boundaries, b, chunk, c, state);
}

/// running = running decayed by the chunk's length, plus the chunk's element; the element's place takes what
/// was there before it.
template <class T, class L>
__device__ __forceinline__ void wkv_scan_step(const WkvTokens<T>& s, L* boundaries, std::int64_t b,
                                              std::int64_t chunk, std::int64_t c, L w, WkvSum<L>& running) {
  const WkvSum<L> element = s.read(boundaries, b, chunk, c);
  s.write(boundaries, b, chunk, c, running);
  const L strongest = static_cast<L>(kWkvVanish), whole = w * static_cast<L>(s.end(chunk) - s.begin(chunk));
  const L decay = s.has_start(b, chunk) || whole < strongest ? strongest : whole;
  const WkvWeights<L> share = wkv_weights(running.p + decay, element.p);
  running = {share.x * running.a + share.y * element.a, share.x * running.b + share.y * element.b,
             share.exponent};
}

/// One thread a channel: the states before each chunk from their elements.
template <class T>
__global__ void __launch_bounds__(kWkvThreads)
    wkv_scan_kernel(WkvTokens<T> s, Lane<T>* boundaries, WkvSums<Lane<T>> initial, WkvSums<Lane<T>> last) {
  using L = Lane<T>;
  const std::int64_t c = std::int64_t{blockIdx.x} * kWkvThreads + threadIdx.x, b = blockIdx.z,
                     i = b * s.channels + c;
  if (c >= s.channels) return;
  const L w = wkv_decay(s.time_decay[c]);
  WkvSum<L> running;
  if (initial.p != nullptr) running = {initial.a[i], initial.b[i], initial.p[i]};
  for (std::int64_t chunk = 0; chunk < s.chunks; ++chunk)
    wkv_scan_step(s, boundaries, b, chunk, c, w, running);
  if (last.p != nullptr) last.a[i] = running.a, last.b[i] = running.b, last.p[i] = running.p;
}

template <class T>
__global__ void __launch_bounds__(kWkvThreads)
    wkv_forward_kernel(WkvTokens<T> s, const Lane<T>* states, T* y) {
  using L = Lane<T>;
  const std::int64_t c = std::int64_t{blockIdx.x} * kWkvThreads + threadIdx.x, chunk = blockIdx.y,
                     b = blockIdx.z;
  if (c >= s.channels) return;
  const L w = wkv_decay(s.time_decay[c]), u = s.time_first[c];
  WkvSum<L> state = s.read(states, b, chunk, c);
  for (std::int64_t t = s.begin(chunk); t < s.end(chunk); ++t) {
    if (s.is_start(b, t)) state = {};
    const std::int64_t i = s.at(b, t, c);
    const L k = load(s.k + i), v = load(s.v + i);
    const WkvWeights<L> share = wkv_weights(state.p, u + k);
    const L weight = share.x * state.b + share.y, total = share.x * state.a + share.y * v;
    // σ(r)·total/weight with one division; far below 0 the exponential is infinite and the result 0.
    store(y + i, total / (weight * (1 + exp(-load(s.r + i)))));
    wkv_advance(state, w, k, v);
  }
}

template <class T>
struct WkvGradients {
  using L = Lane<T>;
  const T* dy;
  const L* states;        // before each chunk
  L* adjoints = nullptr;  // after each chunk; without gradients their elements are written
  L* partial = nullptr;   // [B·chunks, 2, C]: dw, du of each chunk
  T *dr = nullptr, *dk = nullptr, *dv = nullptr;
  bool add_r = false, add_k = false, add_v = false;
};

/// Runs a chunk again from the state before it, which leaves the state before each token in shared memory (a
/// column of its own for each thread: no barriers), and takes the adjoint back. Without `kGradients` only the
/// adjoint moves, from nothing: the chunk's element.
template <bool kGradients, class T>
__global__ void __launch_bounds__(kWkvThreads) wkv_return_kernel(WkvTokens<T> s, WkvGradients<T> g) {
  using L = Lane<T>;
  const std::int64_t c = std::int64_t{blockIdx.x} * kWkvThreads + threadIdx.x, chunk = blockIdx.y,
                     b = blockIdx.z;
  if (c >= s.channels) return;
  const L w = wkv_decay(s.time_decay[c]), u = s.time_first[c];
  const std::int64_t begin = s.begin(chunk), end = s.end(chunk);
  L* column = dynamic_shared<L>() + threadIdx.x;
  const auto place = [column](std::int64_t token, int which) {
    return column + (3 * token + which) * kWkvThreads;
  };
  WkvSum<L> state = s.read(g.states, b, chunk, c);
  for (std::int64_t t = begin; t < end; ++t) {
    if (s.is_start(b, t)) state = {};
    *place(t - begin, 0) = state.a, *place(t - begin, 1) = state.b, *place(t - begin, 2) = state.p;
    wkv_advance(state, w, load(s.k + s.at(b, t, c)), load(s.v + s.at(b, t, c)));
  }
  WkvSum<L> adjoint;
  if (kGradients) adjoint = s.read(g.adjoints, b, chunk, c);
  L dw = 0, du = 0;
  for (std::int64_t t = end; t-- > begin;) {
    const std::int64_t i = s.at(b, t, c);
    const L a = *place(t - begin, 0), sum_b = *place(t - begin, 1), p = *place(t - begin, 2);
    const L k = load(s.k + i), v = load(s.v + i), dy = load(g.dy + i), gate = sigmoid(load(s.r + i));
    const WkvWeights<L> share = wkv_weights(p, u + k);
    const L reciprocal = 1 / (share.x * sum_b + share.y), y = (share.x * a + share.y * v) * reciprocal;
    const L q = gate * dy * reciprocal, decayed = adjoint.p + w;
    if constexpr (kGradients) {
      const L own = q * share.y, exponent = k + adjoint.p, later = exp(exponent < 0 ? exponent : L{0});
      const L own_u = own * (v - y);
      if (g.dr != nullptr) contribute(g.dr + i, dy * y * (gate * (1 - gate)), g.add_r);
      if (g.dk != nullptr) contribute(g.dk + i, later * (adjoint.a * v + adjoint.b) + own_u, g.add_k);
      if (g.dv != nullptr) contribute(g.dv + i, later * adjoint.a + own, g.add_v);
      const L reach = decayed + p;
      dw += exp(reach < 0 ? reach : L{0}) * (adjoint.a * a + adjoint.b * sum_b);
      du += own_u;
    }
    const WkvWeights<L> next = wkv_weights(decayed, -share.exponent);
    const L own = next.y * q;
    adjoint = {next.x * adjoint.a + own, next.x * adjoint.b - own * y, next.exponent};
    if (s.is_start(b, t)) adjoint = {};
  }
  if constexpr (kGradients) {
    L* line = g.partial + (b * s.chunks + chunk) * 2 * s.channels + c;
    line[0] = dw, line[s.channels] = du;
  } else {
    s.write(g.adjoints, b, chunk, c, adjoint);
  }
}

/// Gradient of the initial state, where it is wanted.
template <class L>
struct InitialGradient {
  const L* p;
  L *da, *db;
  bool add_a, add_b;
};

/// One thread a channel: the adjoints after each chunk from their elements, last chunk first.
template <class T>
__global__ void __launch_bounds__(kWkvThreads)
    wkv_return_scan_kernel(WkvTokens<T> s, Lane<T>* boundaries, WkvSums<Lane<T>> last,
                           InitialGradient<Lane<T>> initial) {
  using L = Lane<T>;
  const std::int64_t c = std::int64_t{blockIdx.x} * kWkvThreads + threadIdx.x, b = blockIdx.z,
                     i = b * s.channels + c;
  if (c >= s.channels) return;
  const L w = wkv_decay(s.time_decay[c]);
  WkvSum<L> running;
  if (last.a != nullptr) running.a = last.a[i];
  if (last.b != nullptr) running.b = last.b[i];
  if (last.a != nullptr || last.b != nullptr) running.p = -last.p[i];
  for (std::int64_t chunk = s.chunks; chunk-- > 0;) wkv_scan_step(s, boundaries, b, chunk, c, w, running);
  if (initial.da != nullptr)
    contribute(initial.da + i, running.a * exp(running.p + initial.p[i]), initial.add_a);
  if (initial.db != nullptr)
    contribute(initial.db + i, running.b * exp(running.p + initial.p[i]), initial.add_b);
}

}  // namespace bireme::cuda
