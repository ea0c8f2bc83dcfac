#pragma once

#include <cstdint>

#include "core/tensor/types.h"

namespace bireme::cpu {

/// y = x · Wᵀ (+ b) for few rows, as in decoding: time is what reading W takes, and every number of W is read
/// once.
struct ThinProduct {
  std::int64_t rows = 0, in = 0, out = 0;
  DType input = DType::f32;   ///< of x [rows, in] and W [out, in]: fp32 or bf16
  DType output = DType::f32;  ///< of y [rows, out]
};

constexpr std::int64_t kThinRows = 8;  ///< the most rows

/// Sums are in fp32, each in one order whatever the number of rows and threads.
/// @param bias  fp32 [out], or null
void run_thin_product(const ThinProduct& product, const void* x, const void* weight, const float* bias,
                      void* y);

}  // namespace bireme::cpu
