#pragma once

#include "core/cuda/vectors.cuh"
#include "core/cuda/warp.cuh"

namespace bireme::cuda {

/// R of one head stays on chip while its sequence passes: each thread has one line of it (forward a row, on
/// the way back a column of one gate), the first `kHeld` numbers in registers, then `in_shared` in shared
/// memory, and what is left is read from L2.
///
/// Four neighbouring threads are the gates of a unit. Up to 128 units have a thread for every gate and 64
/// numbers in registers; more units take turns, since 1024 threads leave no registers for it.
inline constexpr int kSlstmHeld = 64, kSlstmHeldThreads = 512, kSlstmTurnThreads = 1024;

template <int kHeld>
inline constexpr int kSlstmThreads = kHeld > 0 ? kSlstmHeldThreads : kSlstmTurnThreads;

struct SlstmShape {
  std::int64_t time, heads;
  int units, padded;  // D, and D up to a multiple of 64: vectors in shared memory end in zeros
  int lines;          // 4·D up to a multiple of a warp
  int in_shared;      // numbers of each line

  __device__ int head() const { return static_cast<int>(blockIdx.x); }
  __device__ std::int64_t sequence() const { return blockIdx.y; }
  __device__ std::int64_t at(std::int64_t t) const { return (sequence() * time + t) * heads + head(); }
};

template <class L, int kHeld>
struct SlstmLine {
  L held[kHeld > 0 ? kHeld : 1];
  L* room;  // [in_shared][lines]

  /// `stride`: from number to number of a line in memory. `first(line)`: its address, null for none.
  template <class First>
  __device__ __forceinline__ SlstmLine(const SlstmShape& s, L* shared, std::int64_t stride,
                                       const First& first)
      : room(shared) {
    if constexpr (kHeld > 0) {
      const L* from = first(static_cast<int>(threadIdx.x));
#pragma unroll
      for (int j = 0; j < kHeld; ++j) held[j] = from != nullptr && j < s.units ? from[j * stride] : L{0};
    }
    for (int line = static_cast<int>(threadIdx.x); line < s.lines; line += static_cast<int>(blockDim.x)) {
      const L* from = first(line);
      for (int j = 0; j < s.in_shared; ++j)
        room[j * s.lines + line] = from != nullptr ? from[(kHeld + j) * stride] : L{0};
    }
  }

  /// start + this line times a vector of shared memory; two sums in turns, to wait less for each other.
  __device__ __forceinline__ L times(const SlstmShape& s, int line, const L* from, std::int64_t stride,
                                     const L* vector, L start) const {
    L sums[2] = {start, 0};
    if constexpr (kHeld > 0) {
#pragma unroll
      for (int j = 0; j < kHeld; j += 4) {
        const auto x = load_pack<4>(vector + j);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[i % 2] += held[j + i] * x.v[i];
      }
    }
    int j = kHeld;
    for (const int end = kHeld + s.in_shared; j < end; ++j)
      sums[j % 2] += room[(j - kHeld) * s.lines + line] * vector[j];
    if (from != nullptr)
      for (; j < s.units; ++j) sums[j % 2] += from[j * stride] * vector[j];
    return sums[0] + sums[1];
  }
};

}  // namespace bireme::cuda
