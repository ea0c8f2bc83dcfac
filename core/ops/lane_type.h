#pragma once

#include "core/tensor/types.h"

namespace bireme {

/// In what values of a type are computed, and statistics and states beside them kept: fp64 for fp64, fp32
/// else.
inline DType lane_type(DType type) { return type == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace bireme
