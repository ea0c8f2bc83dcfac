#pragma once

// The part of the CUDA runtime that Bireme uses, for kernels compiled for the host: what is declared here
// behaves as on a GPU as far as a result can show it, and reports what a GPU would leave undefined. See
// README.md.

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>

#include "cuda_api.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one after another
#define __align__(bytes) alignas(bytes)

namespace cuda_on_cpu {

/// Where the running thread stands; set whenever threads change.
extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;

using Where = std::source_location;

void barrier(const Where& where);
/// Meets the lanes of `mask`; the lowest `bytes` of each lane's value are exchanged. Result: the values of
/// all lanes.
const std::uint64_t* meet(const char* what, unsigned mask, std::uint64_t value, const Where& where);
/// Reports a shuffle from a lane that takes no part.
void require_source(unsigned mask, int lane, const Where& where);

inline int lane() {
  const unsigned linear = thread_index.x + block_size.x * (thread_index.y + block_size.y * thread_index.z);
  return static_cast<int>(linear % 32);
}

template <class T>
T shuffle(const char* what, unsigned mask, T value, int source, int width, const Where& where) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  const int own = lane();
  const bool inside = source / width == own / width && source >= 0 && source < 32;
  const int from = inside ? source : own;
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const std::uint64_t* all = meet(what, mask, bits, where);
  require_source(mask, from, where);
  std::memcpy(&value, &all[from], sizeof value);
  return value;
}

}  // namespace cuda_on_cpu

#define threadIdx (::cuda_on_cpu::thread_index)
#define blockIdx (::cuda_on_cpu::block_index)
#define blockDim (::cuda_on_cpu::block_size)
#define gridDim (::cuda_on_cpu::grid_size)

inline void __syncthreads(const cuda_on_cpu::Where& where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::barrier(where);
}
inline void __syncwarp(unsigned mask = ~0U, const cuda_on_cpu::Where& where = cuda_on_cpu::Where::current()) {
  cuda_on_cpu::meet("__syncwarp", mask, 0, where);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const cuda_on_cpu::Where& where = cuda_on_cpu::Where::current()) {
  const int first = cuda_on_cpu::lane() / width * width;
  return cuda_on_cpu::shuffle("__shfl_sync", mask, value, first + source % width, width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  const cuda_on_cpu::Where& where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::shuffle("__shfl_xor_sync", mask, value, cuda_on_cpu::lane() ^ lanes, width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                   const cuda_on_cpu::Where& where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::shuffle("__shfl_down_sync", mask, value, cuda_on_cpu::lane() + static_cast<int>(lanes),
                              width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                 const cuda_on_cpu::Where& where = cuda_on_cpu::Where::current()) {
  return cuda_on_cpu::shuffle("__shfl_up_sync", mask, value, cuda_on_cpu::lane() - static_cast<int>(lanes),
                              width, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              const cuda_on_cpu::Where& where = cuda_on_cpu::Where::current()) {
  const std::uint64_t* all = cuda_on_cpu::meet("__ballot_sync", mask, predicate != 0 ? 1 : 0, where);
  unsigned votes = 0;
  for (unsigned i = 0; i < 32; ++i)
    if ((mask >> i & 1U) != 0 && all[i] != 0) votes |= 1U << i;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate,
                      const cuda_on_cpu::Where& where = cuda_on_cpu::Where::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      const cuda_on_cpu::Where& where = cuda_on_cpu::Where::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}

// Threads change only where they meet, so a plain read and write is atomic.
template <class T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address += value;
  return before;
}
template <class T>
T atomicMax(T* address, T value) {
  const T before = *address;
  if (value > before) *address = value;
  return before;
}
template <class T>
T atomicExch(T* address, T value) {
  const T before = *address;
  *address = value;
  return before;
}
template <class T>
T atomicCAS(T* address, T expected, T value) {
  const T before = *address;
  if (before == expected) *address = value;
  return before;
}
inline void __threadfence() {}

inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
template <class T>
T __ldg(const T* address) {
  return *address;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
