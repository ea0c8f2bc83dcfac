#pragma once

#include "core/autograd/tape.h"
#include "core/ops/pointwise/pointwise.h"
#include "core/ops/pointwise/rotary.h"

namespace bireme {

/// to += from, element by element; types may differ. Without `accumulate`: to = from.
struct Add {
  const Tensor& from;
  const Tensor& to;
  bool accumulate = true;
};

/// to (+)= factor · by · x; may be x itself, and is then left alone where the factor is 1.
struct Scale {
  const Tensor& x;
  double factor;
  Target to;
  Tensor by = {};  // scalar, fp32 or fp64, or undefined for 1
};

struct ResidualAddForward {
  const Tensor &x, &branch;
  const Tensor& scale;  // [R], or undefined for 1
  const Tensor& y;
};
/// dbranch = scale ∘ dy. (dx = dy is handed over without a pass.)
struct ResidualAddBackward {
  const Tensor &dy, &scale;
  Target dbranch;
};

struct AddBias {
  const Tensor& x;     // [R, C]
  const Tensor& bias;  // [C]
  const Tensor& y;
};
struct AddBiasBackward {
  const Tensor& dy;
  Target dbias;  // [C]: column sums
};

/// y = σ(r) ∘ x
struct SigmoidGateForward {
  const Tensor &r, &x, &y;
};
/// dx = σ(r) ∘ dy,   dr = σ(r) ∘ (1 - σ(r)) ∘ x ∘ dy
struct SigmoidGateBackward {
  const Tensor &dy, &r, &x;
  Target dr, dx;
};

/// y = silu(a) ∘ b
struct SiluGateForward {
  const Tensor& x;  // [R, 2·F]: a, b
  const Tensor& y;  // [R, F]
};
/// With σ = 1 / (1 + exp(-a)): db = dy · a·σ;  da = dy · b·σ·(1 + a·(1 - σ))
struct SiluGateBackward {
  const Tensor &dy, &x;
  Target dx;
};

/// In the first `heads` heads of each row: (x_j, x_{j+d/2}) turned by the angle of the row's position, or
/// back.
struct Rotate {
  const Tensor& x;  // [R, ≥ heads · d], in place
  const RotaryTable& table;
  const Tensor& positions;  // [R] i32
  std::int64_t heads;
  bool backwards = false;
};

/// y = (h + skip ∘ u) ∘ silu(z)
struct SkipGateForward {
  const Tensor &h, &u, &skip, &z, &y;
};
/// With s = silu(z): dh = dy ∘ s,  du = dh ∘ skip,  dskip = Σ dh ∘ u,  dz = dy ∘ (h + skip ∘ u) ∘ silu'(z)
struct SkipGateBackward {
  const Tensor &dy, &h, &u, &skip, &z;
  Target dh, du, dskip, dz;
};

/// y = act(a) ∘ b of x = [a, b]
struct ActivationGateForward {
  const Tensor &x, &y;
  Activation activation;
};
/// da = dy ∘ b ∘ act'(a),  db = dy ∘ act(a)
struct ActivationGateBackward {
  const Tensor &dy, &x;
  Activation activation;
  Target dx;
};

struct GeluForward {
  const Tensor &x, &y;
};
/// dx = dy · (Φ(x) + x·φ(x))
struct GeluBackward {
  const Tensor &dy, &x;
  Target dx;
};

class PointwiseKernels {
 public:
  virtual ~PointwiseKernels() = default;
  virtual void add(const Add&) const = 0;
  virtual void scale(const Scale&) const = 0;
  virtual void residual_add(const ResidualAddForward&) const = 0;
  virtual void residual_add(const ResidualAddBackward&) const = 0;
  virtual void add_bias(const AddBias&) const = 0;
  virtual void add_bias(const AddBiasBackward&) const = 0;
  virtual void sigmoid_gate(const SigmoidGateForward&) const = 0;
  virtual void sigmoid_gate(const SigmoidGateBackward&) const = 0;
  virtual void silu_gate(const SiluGateForward&) const = 0;
  virtual void silu_gate(const SiluGateBackward&) const = 0;
  virtual void rotate(const Rotate&) const = 0;
  virtual void skip_gate(const SkipGateForward&) const = 0;
  virtual void skip_gate(const SkipGateBackward&) const = 0;
  virtual void activation_gate(const ActivationGateForward&) const = 0;
  virtual void activation_gate(const ActivationGateBackward&) const = 0;
  virtual void gelu(const GeluForward&) const = 0;
  virtual void gelu(const GeluBackward&) const = 0;
};

}  // namespace bireme
