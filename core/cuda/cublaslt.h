#pragma once

#include <cublasLt.h>

#include <map>
#include <tuple>

#include "core/base/owned.h"
#include "core/cuda/device_memory.h"

namespace bireme::cuda {

/// C[m, n] (+)= op(A) · op(B) (+ bias), all row-major and contiguous: A [m, k], or [k, m] if transposed; B
/// [k, n], or [n, k].
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  DType input = DType::f32, output = DType::f32;  ///< of A and B, and of C
  const void *a = nullptr, *b = nullptr;
  const void* bias = nullptr;  ///< [n] of C's type; or null
  void* c = nullptr;
};

struct CublasLtTraits {
  using Handle = cublasLtHandle_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle handle) noexcept { cublasLtDestroy(handle); }
};

/// Matrix products by cuBLASLt, in full fp32 (no TF32), bf16 with fp32 sums, or fp64. The algorithm that its
/// heuristic proposes is looked up once for each shape.
class MatrixProducts {
 public:
  explicit MatrixProducts(DeviceMemory& memory);
  /// Queues a product.
  void run(const Product& product);

 private:
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, bool, bool, bool, DType, DType, int>;
  struct Choice {
    cublasLtMatmulAlgo_t algorithm;
    std::size_t workspace;
  };

  DeviceMemory& memory_;
  Owned<CublasLtTraits> handle_;
  std::map<Key, Choice> choices_;
};

}  // namespace bireme::cuda
