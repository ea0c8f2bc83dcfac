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

/// y[r, n, part, o] = scale · Σ_i W[n, o, i] · x[r, n, i], one part of `parts`.
struct BlockLinearForward {
  const Tensor &x, &weight;  // [R, N·I], [N, O, I] fp32 (fp64)
  const Tensor& y;           // [R, N·parts·O]
  std::int64_t part, parts;
  bool transposed = false;  // W is stored [N, I, O]
  double scale = 1;
};
/// dx = Σ_o dy·W,  dW = Σ_r dy ⊗ x, of one part.
struct BlockLinearBackward {
  const Tensor &dy, &x, &weight;
  std::int64_t part, parts;
  bool transposed = false;
  double scale = 1;
  Target dx, dweight;
};

/// y (+)= [x·Aᵀ, x·Bᵀ] with columns first … first + C of A and B.
struct GateProductsForward {
  const Tensor &x, &a, &b;  // [R, C], [H, W] fp32 (fp64)
  std::int64_t first;
  const Tensor& y;  // [R, 2·H] fp32 (fp64)
  bool accumulate;
};
struct GateProductsBackward {
  const Tensor &dy, &x, &a, &b;
  std::int64_t first;
  Target dx;
  Tensor da, db;  // added to; undefined where not wanted
};

/// y = cap(g + bias), see cap_gates.
struct CapGatesForward {
  const Tensor &g, &a, &b, &y;
  std::int64_t first;
  double cap;
};
struct CapGatesBackward {
  const Tensor &dy, &y;
  std::int64_t first;
  double cap;
  Target dg, da, db;
};

class LinearKernels {
 public:
  virtual ~LinearKernels() = default;
  virtual void linear(const LinearForward&) const = 0;
  virtual void linear(const LinearBackward&) const = 0;
  virtual void block_linear(const BlockLinearForward&) const = 0;
  virtual void block_linear(const BlockLinearBackward&) const = 0;
  virtual void gate_products(const GateProductsForward&) const = 0;
  virtual void gate_products(const GateProductsBackward&) const = 0;
  virtual void cap_gates(const CapGatesForward&) const = 0;
  virtual void cap_gates(const CapGatesBackward&) const = 0;
  virtual void linear_gelu(const LinearGeluForward&) const = 0;
  virtual void linear_gelu(const LinearGeluBackward&) const = 0;
  virtual void linear_squared_relu(const LinearSquaredReluForward&) const = 0;
  virtual void linear_squared_relu(const LinearSquaredReluBackward&) const = 0;
};

}  // namespace bireme
