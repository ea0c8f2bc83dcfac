#pragma once

#include <cuda_runtime.h>

#include "core/cuda/launch.h"

namespace bireme::cuda {

inline constexpr unsigned kFullWarp = 0xffffffffU;
inline constexpr int kWarp = 32;

/// Sum over the lanes of a warp, the same bits in every lane. All lanes take part.
template <class L>
__device__ __forceinline__ L warp_sum(L x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kFullWarp, x, step);
  return x;
}

template <class L>
__device__ __forceinline__ L warp_max(L x) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const L other = __shfl_xor_sync(kFullWarp, x, step);
    x = other > x ? other : x;
  }
  return x;
}

/// Sum over a block of `Warps` full warps, the same bits in every thread. `room` holds Warps numbers of
/// shared memory, which may be used again after the next barrier.
template <int Warps, class L>
__device__ __forceinline__ L block_sum(L x, L* room) {
  x = warp_sum(x);
  if constexpr (Warps == 1) return x;
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = x;
  __syncthreads();
  L total = room[0];
  for (int i = 1; i < Warps; ++i) total += room[i];
  __syncthreads();
  return total;
}

template <int Warps, class L>
__device__ __forceinline__ L block_max(L x, L* room) {
  x = warp_max(x);
  if constexpr (Warps == 1) return x;
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = x;
  __syncthreads();
  L most = room[0];
  for (int i = 1; i < Warps; ++i) most = room[i] > most ? room[i] : most;
  __syncthreads();
  return most;
}

}  // namespace bireme::cuda
