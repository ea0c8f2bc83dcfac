#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "core/cuda/runtime.h"

namespace bireme::cuda {

/// Blocks, threads of a block, and the bytes that dynamic_shared() hands out.
struct Grid {
  dim3 blocks;
  dim3 threads;
  std::size_t shared_bytes = 0;
};

template <class Op>
concept NeedsRegisters = requires {
  typename Op::NeedsRegisters;
};

/// The least number of blocks of 256 threads that a processor is to hold of a kernel that runs an operation,
/// for its launch bounds. 0 leaves it to ptxas, which now and then holds registers to 32 or 40 for the price
/// of a spill; 4 allows 64.
template <class Op>
inline constexpr int kLeast = NeedsRegisters<Op> ? 4 : 0;

/// Queues a kernel on a stream. The one place that launches kernels: tests/cuda_on_cpu shadows this header to
/// run the same kernels on the host. Arguments are converted to the kernel's parameters, so that a wrong type
/// does not compile.
template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, const Grid& grid, void (*kernel)(Parameters...), Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments),
                "a kernel takes as many arguments as it names");
  constexpr std::size_t kWithoutAsking = 48 << 10;
  if (grid.shared_bytes > kWithoutAsking)
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(grid.shared_bytes)),
               "reserve the shared memory of a kernel");
  kernel<<<grid.blocks, grid.threads, grid.shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  cuda_check(cudaGetLastError(), "launch a kernel");
}

/// The dynamic shared memory of a block, 16-byte aligned.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}

}  // namespace bireme::cuda
