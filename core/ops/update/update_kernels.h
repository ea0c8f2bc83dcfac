#pragma once

#include <span>

#include "core/tensor/tensor.h"

namespace bireme {

/// One AdamW step over a slice of flat buffers (Loshchilov and Hutter 2019, algorithm 2), one pass over
/// memory:
///     g ← gradient_scale · g;  m ← β₁·m + (1-β₁)·g;  v ← β₂·v + (1-β₂)·g²;
///     θ ← θ·(1 - lr·decay);    θ ← θ - lr · (m / bias₁) / (√(v / bias₂) + ε)
struct AdamWSlice {
  std::int64_t begin = 0, end = 0;
  float learning_rate = 0, weight_decay = 0;
  float gradient_scale = 1;    ///< of clipping
  float bias1 = 1, bias2 = 1;  ///< 1 - βᵗ
};
struct AdamW {
  const Tensor& values;                        // [N] fp32
  const Tensor& gradients;                     // [N] fp32
  const Tensor &first_moment, &second_moment;  // [N] fp32
  const Tensor& bf16_copy;                     // [N], or undefined
  std::span<const AdamWSlice> slices;
  float beta1, beta2, epsilon;
};

/// average ← momentum · average + (1 - momentum) · values, and its bf16 copy.
struct Average {
  const Tensor &values, &average;
  const Tensor& bf16_copy;  // of the average, or undefined
  float momentum;
};

class UpdateKernels {
 public:
  virtual ~UpdateKernels() = default;
  virtual void adamw(const AdamW&) const = 0;
  virtual void average(const Average&) const = 0;
  /// Σ x² of each [begin, end) slice of a flat fp32 buffer, in fp64, summed in an order that the slice alone
  /// decides.
  virtual void squared_norms(const Tensor& values,
                             std::span<const std::pair<std::int64_t, std::int64_t>> slices,
                             std::span<double> result) const = 0;
};

}  // namespace bireme
