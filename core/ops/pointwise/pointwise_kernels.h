#pragma once

#include "core/autograd/tape.h"

namespace bireme {

/// to += from, element by element; types may differ. Without `accumulate`: to = from.
struct Add {
  const Tensor& from;
  const Tensor& to;
  bool accumulate = true;
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
  virtual void residual_add(const ResidualAddForward&) const = 0;
  virtual void residual_add(const ResidualAddBackward&) const = 0;
  virtual void add_bias(const AddBias&) const = 0;
  virtual void add_bias(const AddBiasBackward&) const = 0;
  virtual void sigmoid_gate(const SigmoidGateForward&) const = 0;
  virtual void sigmoid_gate(const SigmoidGateBackward&) const = 0;
  virtual void gelu(const GeluForward&) const = 0;
  virtual void gelu(const GeluBackward&) const = 0;
};

}  // namespace bireme
