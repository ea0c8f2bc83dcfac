#pragma once

// Shadows core/cuda/launch.h: queues the kernel on the harness's stream.

#include <cuda_runtime.h>

#include <source_location>
#include <tuple>

#include "tests/cuda_on_cpu/block.h"
#include "tests/cuda_on_cpu/stream.h"

namespace bireme::cuda {

struct Grid {
  dim3 blocks;
  dim3 threads;
  std::size_t shared_bytes = 0;
};

/// The stream, and where the kernel is launched.
struct Launch {
  Launch(cudaStream_t to, std::source_location here = std::source_location::current())  // NOLINT
      : stream(to), where(here) {}
  cudaStream_t stream;
  std::source_location where;
};

template <class... Parameters, class... Arguments>
void launch(const Launch& on, const Grid& grid, void (*kernel)(Parameters...), Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  cuda_on_cpu::enqueue(
      on.stream, {"kernel", reinterpret_cast<std::uintptr_t>(kernel)},
      [=, where = on.where,
       values = std::tuple<std::decay_t<Parameters>...>(static_cast<Parameters>(arguments)...)] {
        cuda_on_cpu::run_grid(
            {grid.blocks, grid.threads, grid.shared_bytes}, [&] { std::apply(kernel, values); }, where);
      });
}

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(cuda_on_cpu::shared_memory());
}

}  // namespace bireme::cuda
