#pragma once

#include "core/tensor/tensor.h"

namespace bireme {

/// The numbers of a tensor in fp64, on the host.
inline Tensor numbers_of(const Tensor& tensor) { return convert(tensor.memory().host(), tensor, DType::f64); }

}  // namespace bireme
