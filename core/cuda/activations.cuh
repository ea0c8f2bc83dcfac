#pragma once

#include <cuda_runtime.h>

#include "core/cuda/launch.h"

namespace bireme::cuda {

/// An activation and its derivative.
template <class L>
struct Activated {
  L value, slope;
};

/// σ(x) by the exponential that cannot overflow.
template <class L>
__device__ __forceinline__ L sigmoid(L x) {
  const L e = exp(x < 0 ? x : -x);
  return (x < 0 ? e : L{1}) / (L{1} + e);
}

/// log σ(x), exact in both tails.
template <class L>
__device__ __forceinline__ L log_sigmoid(L x) {
  return (x < 0 ? x : L{0}) - log1p(exp(x < 0 ? x : -x));
}

/// x·Φ(x), exact: Φ by erfc, whose relative error stays small in the left tail.
template <class L>
__device__ __forceinline__ Activated<L> gelu(L x) {
  const L distribution = L{0.5} * erfc(x * static_cast<L>(-0.70710678118654752));
  const L density = static_cast<L>(0.39894228040143268) * exp(L{-0.5} * x * x);
  return {x * distribution, x * density + distribution};
}

template <class L>
__device__ __forceinline__ Activated<L> silu(L x) {
  const L s = sigmoid(x);
  return {x * s, s * (x * (L{1} - s) + L{1})};
}

}  // namespace bireme::cuda
