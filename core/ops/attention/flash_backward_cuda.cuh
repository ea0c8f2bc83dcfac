#pragma once

#include "core/ops/attention/flash_forward_cuda.cuh"

namespace bireme::cuda {

/// δ = rowsum(dy ∘ y) of each row and head.
template <class T>
struct DeltaOp {
  const T *dy, *y;
  Lane<T>* delta;
  std::int64_t dimension;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    Lane<T> sum = 0;
    for (std::int64_t c = i * dimension; c < (i + 1) * dimension; ++c) sum += load(dy + c) * load(y + c);
    delta[i] = sum;
  }
};

template <class T>
struct FlashGradient {
  const T* dy;
  const Lane<T>*log_sum, *delta;  // [R, H]
  T* dqkv;
  bool accumulate;
};

/// As the way forward, with dy beside the queries: dq_t = Σ_s dS_ts k_s / √d, dS = P ∘ (dy·v - δ).
template <class T, int Components>
__global__ void __launch_bounds__(kFlashWarps* kWarp)
    flash_query_gradient_kernel(FlashShape<T> s, FlashGradient<T> g) {
  using L = Lane<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t sequence = blockIdx.z, head = blockIdx.y, d = s.dimension, wide = d + 1;
  const std::int64_t begin = std::int64_t{blockIdx.x} * kFlashBlock;
  const std::int64_t end = begin + kFlashBlock < s.length ? begin + kFlashBlock : s.length;
  L* keys = dynamic_shared<L>();
  L *values = keys + kFlashTile * wide, *queries = values + kFlashTile * wide,
    *outer = queries + kFlashBlock * d;
  L* slopes = outer + kFlashBlock * d + warp * kFlashRows * kFlashTile;
  for (std::int64_t i = threadIdx.x; i < (end - begin) * d; i += blockDim.x) {
    const std::int64_t t = begin + i / d;
    queries[i] = load(s.query(sequence, t, head) + i % d) * s.scale;
    outer[i] = load(g.dy + (s.row(sequence, t) * s.heads + head) * d + i % d);
  }
  const std::int64_t mine = begin + warp * kFlashRows;
  L sums[kFlashRows][Components] = {};
  const std::int64_t low = s.lowest(sequence, begin) / kFlashTile * kFlashTile,
                     high = s.high(sequence, end - 1);
  for (std::int64_t tile = low; tile < high; tile += kFlashTile) {
    __syncthreads();
    load_key_tile(s, sequence, head, tile, high, keys, values);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kFlashRows; ++r) {
      const std::int64_t t = mine + r;
      if (t >= end) break;
      const std::int64_t column = tile + lane, entry = s.row(sequence, t) * s.heads + head;
      L slope = 0;
      if (s.sees(sequence, t, column)) {
        const L weight = exp(dot(queries + (t - begin) * d, keys + lane * wide, d) - g.log_sum[entry]);
        slope = weight * (dot(outer + (t - begin) * d, values + lane * wide, d) - g.delta[entry]);
      }
      slopes[r * kFlashTile + lane] = slope;
    }
    __syncwarp();
#pragma unroll
    for (int c = 0; c < Components; ++c) {
      const int component = lane + c * kWarp;
      if (component >= d) break;
#pragma unroll 4
      for (int j = 0; j < kFlashTile; ++j) {
        const L key = keys[j * wide + component];
#pragma unroll
        for (int r = 0; r < kFlashRows; ++r)
          if (mine + r < end) sums[r][c] += slopes[r * kFlashTile + j] * key;
      }
    }
    __syncwarp();
  }
#pragma unroll
  for (int r = 0; r < kFlashRows; ++r) {
    const std::int64_t t = mine + r;
    if (t >= end) break;
    T* dq = g.dqkv + s.row(sequence, t) * s.q_row + head * d;
#pragma unroll
    for (int c = 0; c < Components; ++c) {
      const int component = lane + c * kWarp;
      if (component < d) contribute(dq + component, sums[r][c] * s.scale, g.accumulate);
    }
  }
}

/// A block takes 16 keys of one key head and walks over tiles of 32 queries, head by head of its group: lane
/// l weighs query l of the tile. dv_s = Σ_t P_ts dy_t, dk_s = Σ_t dS_ts q_t / √d.
template <class T, int Components>
__global__ void __launch_bounds__(kFlashWarps* kWarp)
    flash_key_gradient_kernel(FlashShape<T> s, FlashGradient<T> g) {
  using L = Lane<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t sequence = blockIdx.z, key_head = blockIdx.y, d = s.dimension, wide = d + 1;
  const std::int64_t begin = std::int64_t{blockIdx.x} * kFlashBlock;
  const std::int64_t end = begin + kFlashBlock < s.length ? begin + kFlashBlock : s.length;
  L* queries = dynamic_shared<L>();
  L *outer = queries + kFlashTile * wide, *keys = outer + kFlashTile * wide, *values = keys + kFlashBlock * d;
  L* weights = values + kFlashBlock * d + warp * 2 * kFlashRows * kFlashTile;
  L* slopes = weights + kFlashRows * kFlashTile;
  for (std::int64_t i = threadIdx.x; i < (end - begin) * d; i += blockDim.x) {
    const std::int64_t at = s.key(sequence, begin + i / d, key_head * s.group) + i % d;
    keys[i] = load(s.k + at);
    values[i] = load(s.v + at);
  }
  const std::int64_t mine = begin + warp * kFlashRows;
  L dk[kFlashRows][Components] = {}, dv[kFlashRows][Components] = {};
  // A causal key is seen by itself and later rows only.
  const std::int64_t low = s.causal ? begin / kFlashTile * kFlashTile : 0;
  for (std::int64_t head = key_head * s.group; head < (key_head + 1) * s.group; ++head) {
    for (std::int64_t tile = low; tile < s.length; tile += kFlashTile) {
      __syncthreads();
      for (std::int64_t i = threadIdx.x; i < kFlashTile * d; i += blockDim.x) {
        const std::int64_t row = i / d, c = i % d, t = tile + row;
        const bool inside = t < s.length;
        queries[row * wide + c] = inside ? load(s.query(sequence, t, head) + c) * s.scale : L{0};
        outer[row * wide + c] = inside ? load(g.dy + (s.row(sequence, t) * s.heads + head) * d + c) : L{0};
      }
      __syncthreads();
      const std::int64_t t = tile + lane, entry = s.row(sequence, t) * s.heads + head;
#pragma unroll
      for (int r = 0; r < kFlashRows; ++r) {
        const std::int64_t column = mine + r;
        if (column >= end) break;
        L weight = 0, slope = 0;
        if (t < s.length && s.sees(sequence, t, column)) {
          weight = exp(dot(keys + (column - begin) * d, queries + lane * wide, d) - g.log_sum[entry]);
          slope = weight * (dot(values + (column - begin) * d, outer + lane * wide, d) - g.delta[entry]);
        }
        weights[r * kFlashTile + lane] = weight;
        slopes[r * kFlashTile + lane] = slope;
      }
      __syncwarp();
#pragma unroll
      for (int c = 0; c < Components; ++c) {
        const int component = lane + c * kWarp;
        if (component >= d) break;
#pragma unroll 4
        for (int j = 0; j < kFlashTile; ++j) {
          const L query = queries[j * wide + component], dy = outer[j * wide + component];
#pragma unroll
          for (int r = 0; r < kFlashRows; ++r) {
            if (mine + r >= end) continue;
            dk[r][c] += slopes[r * kFlashTile + j] * query;  // the query holds 1 / √d
            dv[r][c] += weights[r * kFlashTile + j] * dy;
          }
        }
      }
      __syncwarp();
    }
  }
#pragma unroll
  for (int r = 0; r < kFlashRows; ++r) {
    const std::int64_t column = mine + r;
    if (column >= end) break;
    const std::int64_t at = s.key(sequence, column, key_head * s.group);
    T *to_k = g.dqkv + (s.k - s.q) + at, *to_v = g.dqkv + (s.v - s.q) + at;
#pragma unroll
    for (int c = 0; c < Components; ++c) {
      const int component = lane + c * kWarp;
      if (component >= d) break;
      contribute(to_k + component, dk[r][c], g.accumulate);
      contribute(to_v + component, dv[r][c], g.accumulate);
    }
  }
}

/// Packed queries, keys and values only: their gradients stand in dqkv as they do in qkv.
template <class T>
void flash_backward(DeviceMemory& memory, const FlashShape<T>& s, const FlashGradient<T>& g) {
  if (s.length == 0 || s.sequences == 0) return;
  dispatch_components(s.dimension, [&](auto components) {
    constexpr int kComponents = decltype(components)::value;
    launch(memory.stream(), flash_grid(s, 2), flash_query_gradient_kernel<T, kComponents>, s, g);
    Grid keys = flash_grid(s, 2);
    keys.blocks.y = to_unsigned(s.heads / s.group);
    launch(memory.stream(), keys, flash_key_gradient_kernel<T, kComponents>, s, g);
  });
}

}  // namespace bireme::cuda
