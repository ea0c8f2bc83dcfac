#pragma once

#include "core/autograd/tape.h"

namespace bireme {

struct LinearForward {
  const Tensor& x;       // [R, C]: fp32, bf16 or fp64
  const Tensor& weight;  // [O, C], type of x
  const Tensor& bias;    // [O], fp32 (fp64), or undefined
  const Tensor& y;       // [R, O], type of x, or fp32
};

/// dx = dy · W,  dW = dyᵀ · x,  dbias = column sums of dy.
struct LinearBackward {
  const Tensor& dy;  // [R, O]
  const Tensor &x, &weight;
  Target dx;       // [R, C]
  Target dweight;  // [O, C], fp32 (fp64)
  Target dbias;    // [O], fp32 (fp64)
};

struct LinearGeluForward {
  const Tensor &x, &weight, &bias;
  const Tensor& z;  // [R, O]: x · Wᵀ + b, kept for the way back
  const Tensor& y;  // [R, O]: GELU(z)
};

/// First dz = dy ∘ GELU'(z), written over z; then as LinearBackward.
struct LinearGeluBackward {
  const Tensor& dy;
  const Tensor& z;
  const Tensor &x, &weight;
  Target dx, dweight, dbias;
};

struct LinearSquaredReluForward {
  const Tensor &x, &weight;
  const Tensor& y;  // [R, O]: relu(x · Wᵀ)²
};

/// First dz = 2 √y ∘ dy; then as LinearBackward.
struct LinearSquaredReluBackward {
  const Tensor& dy;
  const Tensor& y;
  const Tensor& dz;  // [R, O]: scratch, may be dy
  const Tensor &x, &weight;
  Target dx, dweight;
};

class LinearKernels {
 public:
  virtual ~LinearKernels() = default;
  virtual void linear(const LinearForward&) const = 0;
  virtual void linear(const LinearBackward&) const = 0;
  virtual void linear_gelu(const LinearGeluForward&) const = 0;
  virtual void linear_gelu(const LinearGeluBackward&) const = 0;
  virtual void linear_squared_relu(const LinearSquaredReluForward&) const = 0;
  virtual void linear_squared_relu(const LinearSquaredReluBackward&) const = 0;
};

}  // namespace bireme
