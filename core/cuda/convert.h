#pragma once

#include <cuda_runtime_api.h>

#include "core/tensor/tensor.h"

namespace bireme::cuda {

/// Kernels under copy() and fill(): between floating-point types, or integers of any type.
void convert_values(const Tensor& from, const Tensor& to, cudaStream_t stream);
void fill_values(const Tensor& tensor, double value, cudaStream_t stream);

}  // namespace bireme::cuda
