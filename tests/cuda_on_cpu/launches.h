#pragma once

#include <cstdint>

namespace cuda_on_cpu {

/// What has run on the GPU so far. When the process ends it is written to the file that CUDA_ON_CPU_LAUNCHES
/// names, as `KERNELS PRODUCTS COPIES WAITS CALLS`.
struct Launches {
  std::int64_t kernels = 0;
  std::int64_t products = 0;  ///< of matrices, by cuBLASLt, and attention by cuDNN
  std::int64_t copies = 0;    ///< and fills with bytes
  std::int64_t waits = 0;     ///< of the host for the GPU
  std::int64_t calls = 0;     ///< by which the host started something of the above, a collective or a graph
};
Launches& launches();

}  // namespace cuda_on_cpu
