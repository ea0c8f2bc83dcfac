#pragma once

#include <cstdint>
#include <memory>

#include "core/tensor/tensor.h"

namespace bireme::cpu {

/// One matrix product C[M, N] (+)= op(A) · op(B) (+ bias), row-major, as oneDNN runs it.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false;  ///< A is stored [K, M]
  bool transpose_b = false;  ///< B is stored [N, K]
  bool accumulate = false;   ///< add to C instead of overwriting it
  DType input = DType::f32;  ///< of A and B: fp32 or bf16
  DType output = DType::f32;
  bool bias = false;  ///< fp32 [N], added to every row
  friend bool operator==(const Product&, const Product&) = default;
};

/// Runs products through oneDNN with a cache of its primitives. Sums are in fp32. Inside an OpenMP parallel
/// region a product runs on the calling thread alone. Thread-safe.
class MatrixProducts {
 public:
  MatrixProducts();
  ~MatrixProducts();
  MatrixProducts(const MatrixProducts&) = delete;
  MatrixProducts& operator=(const MatrixProducts&) = delete;

  void run(const Product& product, const void* a, const void* b, void* c, const float* bias = nullptr) const;

  /// B laid out as the kernel for `product` likes it best, for products that are run many times with one B.
  struct Packed;
  std::shared_ptr<const Packed> pack(const Product& product, const void* b) const;
  void run(const Product& product, const void* a, const Packed& b, void* c,
           const float* bias = nullptr) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bireme::cpu
