#pragma once

#include <memory>

#include "core/ops/backend.h"

namespace bireme::cuda {

struct BackendOptions {
  int local_rank = 0, local_size = 1;  ///< of the ranks on this host: rank i takes GPU i
  bool graphs = false;                 ///< captured() runs stretches as CUDA graphs
};

/// The kernels for a GPU, on a stream of their own.
/// @throws Error (no_device) when this binary has no CUDA, there is no GPU, the driver is too old, or ranks
///         outnumber GPUs
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

}  // namespace bireme::cuda
