#pragma once

#include "core/cuda/activations.cuh"
#include "core/cuda/vectors.cuh"
#include "core/cuda/warp.cuh"

namespace bireme::cuda {

inline constexpr int kStepThreads = 256;  // on the memory: 32 values, whose keys eight warps share out

/// One token of every line.
template <class T>
struct MlstmToken {
  using L = Lane<T>;
  const T *q, *k, *v;
  const L* gates;
  L *memory, *normalizer, *maximum, *weights;  // weights [lines, 3]: decay, input, 1 / denominator
  T* h;
  std::int64_t heads, keys, values;
  L scale, epsilon;
};

/// A block a line: the gates' weights, ñ and the denominator.
template <class T>
__global__ void __launch_bounds__(kStepThreads) mlstm_step_normalizer_kernel(MlstmToken<T> a) {
  using L = Lane<T>;
  __shared__ L room[kStepThreads / kWarp];
  const std::int64_t line = blockIdx.x, gate = line / a.heads * 2 * a.heads + line % a.heads;
  const L carried = log_sigmoid(a.gates[gate + a.heads]) + a.maximum[line], input_gate = a.gates[gate];
  const L maximum = carried > input_gate ? carried : input_gate;
  const L forget = exp(carried - maximum), input = exp(input_gate - maximum);
  L product = 0;
  for (std::int64_t i = threadIdx.x; i < a.keys; i += kStepThreads) {
    L& n = a.normalizer[line * a.keys + i];
    n = forget * n + input * load(a.k + line * a.keys + i);
    product += a.scale * load(a.q + line * a.keys + i) * n;
  }
  product = block_sum<kStepThreads / kWarp>(product, room);  // all have read the maximum
  if (threadIdx.x != 0) return;
  a.maximum[line] = maximum;
  const L size = product < 0 ? -product : product, floor = exp(-maximum);
  L* weights = a.weights + 3 * line;
  weights[0] = forget, weights[1] = input, weights[2] = 1 / ((size > floor ? size : floor) + a.epsilon);
}

/// One pass over C̃, which decays, takes in k·vᵀ and is read by q: lane l has value l of the block's 32, warp
/// w the keys w, w + 8, …
template <class T>
__global__ void __launch_bounds__(kStepThreads) mlstm_step_memory_kernel(MlstmToken<T> a) {
  using L = Lane<T>;
  constexpr int kWarps = kStepThreads / kWarp;
  __shared__ L sums[kWarps][kWarp];
  const std::int64_t line = blockIdx.y, j = std::int64_t{blockIdx.x} * kWarp + threadIdx.x % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const bool inside = j < a.values;
  const L *weights = a.weights + 3 * line, decay = weights[0], input = weights[1];
  const L v = inside ? input * load(a.v + line * a.values + j) : L{0};
  L sum = 0;
  for (std::int64_t i = warp; i < a.keys && inside; i += kWarps) {
    L& c = a.memory[(line * a.keys + i) * a.values + j];
    c = decay * c + load(a.k + line * a.keys + i) * v;
    sum += a.scale * load(a.q + line * a.keys + i) * c;
  }
  sums[warp][threadIdx.x % kWarp] = sum;
  __syncthreads();
  if (warp != 0 || !inside) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w][threadIdx.x % kWarp];
  store(a.h + line * a.values + j, sum * weights[2]);
}

}  // namespace bireme::cuda
