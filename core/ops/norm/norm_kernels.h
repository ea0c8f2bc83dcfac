#pragma once

#include "core/autograd/tape.h"

namespace bireme {

/// y = (x - mean) · r · gain + bias for each row. Statistics, gain and bias are fp32, or fp64 when x is.
struct LayerNormForward {
  const Tensor &x;                  // [R, C]
  const Tensor &gain, &bias;        // [C]
  const Tensor &y;                  // [R, C], compute type
  const Tensor &mean, &reciprocal;  // [R]: mean and r, kept for backward
  float epsilon;
};

/// x_sum = x + scale ∘ branch, and y = its layer norm, in one pass.
struct ResidualNormForward {
  const Tensor &x, &branch;   // [R, C], residual type and compute type
  const Tensor &scale;        // [R], or undefined for 1
  const Tensor &gain, &bias;  // [C]
  const Tensor &x_sum, &y;    // [R, C], residual type and compute type
  const Tensor &mean, &reciprocal;
  float epsilon;
};

/// With x̂ = (x - mean) · r and g = dy · gain:
///     dx = r · (g - mean(g) - x̂ · mean(g · x̂)) + direct,   dgain = Σ dy · x̂,   dbias = Σ dy   (sums over
///     rows)
struct LayerNormBackward {
  const Tensor &dy, &x, &gain, &mean, &reciprocal;
  const Tensor &direct;  // [R, C], a further gradient of x; undefined for none; may be dx itself
  Target dx;             // [R, C], type of x
  const Tensor &scale;   // [R], or undefined for 1
  Target dbranch;        // [R, C]: scale ∘ dx, without what dx held before; empty if not wanted
  Target dgain, dbias;   // [C]
};

/// x_sum = x + branch, where there is a branch, and y = gain · x_sum · r for each row, r = (mean x_sum² +
/// epsilon)^(-1/2). Where y is bf16, x_sum · r is rounded before it meets gain.
struct RmsNormForward {
  const Tensor &x, &branch;  // [R, C], residual type and compute type; branch undefined: none
  const Tensor &gain;        // [C]
  const Tensor &x_sum, &y;   // [R, C], residual type and compute type; x_sum undefined without a branch
  const Tensor &reciprocal;  // [R]: r, kept for backward
  float epsilon;
};
/// With u = dy · gain: dx = r · u - x · r³ · mean(u · x) + direct,   dgain = Σ dy · x · r
struct RmsNormBackward {
  const Tensor &dy, &x, &gain, &reciprocal;
  const Tensor &direct;  // [R, C], a further gradient of x; undefined for none; may be dx itself
  Target dx;             // [R, C], type of x
  Target dbranch;        // [R, C]: dx, without what it held before; empty if not wanted
  Target dgain;          // [C]
};

/// y = (x - mean) · r · (gain + offset), with mean and r of each row's groups of C / groups channels.
struct GroupNormForward {
  const Tensor &x, &gain, &y;       // [R, C], [C], [R, C]
  const Tensor &mean, &reciprocal;  // [R, groups], kept for backward
  float offset, epsilon;
};
/// As LayerNormBackward, within each group.
struct GroupNormBackward {
  const Tensor &dy, &x, &gain, &mean, &reciprocal;
  float offset;
  Target dx, dgain;
};

/// u = x / n, n = max(‖x‖, floor) for each row.
struct L2NormalizeForward {
  const Tensor &x, &u;  // [R, C]
  const Tensor &norm;   // [R]: n, kept for backward
};
/// dx = (du - u · (u·du)) / n; where the floor was reached, u is linear in x and dx = du / n.
struct L2NormalizeBackward {
  const Tensor &du, &u, &norm;
  Target dx;
};

/// W_k = g_k · v_k / ‖v_k‖
struct WeightNormForward {
  const Tensor &direction, &magnitude;  // [K, C], [K, 1]
  const Tensor &weight;                 // [K, C]
  const Tensor &norm;                   // [K]: ‖v_k‖, kept for backward
};
/// With v̂ = v / ‖v‖: dg_k = dW_k · v̂_k,   dv_k = (g_k / ‖v_k‖) · (dW_k - v̂_k · dg_k)
struct WeightNormBackward {
  const Tensor &dweight, &direction, &magnitude, &norm;
  Target ddirection, dmagnitude;
};

/// The three sums over rows that batch normalisation needs, each to be added over ranks before the next is
/// taken. sums[c] = Σ x[r, c], sums[C] = R
struct BatchSums {
  const Tensor &x, &sums;  // [R, C], [C + 1]
};
/// squares[c] = Σ (x[r, c] - sums[c] / sums[C])²
struct BatchSquares {
  const Tensor &x, &sums, &squares;  // squares [C]
};
/// y = (x - mean) · r · gain + bias with mean = sums / count, r = 1 / √(squares / count + epsilon); the
/// running statistics move by `momentum` towards mean and unbiased variance.
struct BatchNormForward {
  const Tensor &x, &sums, &squares, &gain, &bias, &y;
  const Tensor &running_mean, &running_variance;
  float epsilon, momentum;
};
/// totals[c] = Σ dy, totals[C + c] = Σ dy · x̂
struct BatchNormTotals {
  const Tensor &dy, &x, &sums, &squares, &totals;  // totals [2·C]
  Target dgain, dbias;                             // of this rank's rows
  float epsilon;
};
/// dx = gain · r · (dy - totals₁ / count - x̂ · totals₂ / count)
struct BatchNormBackward {
  const Tensor &dy, &x, &sums, &squares, &totals, &gain;
  Target dx;
  float epsilon;
};

class NormKernels {
 public:
  virtual ~NormKernels() = default;
  virtual void layer_norm(const LayerNormForward &) const = 0;
  virtual void residual_layer_norm(const ResidualNormForward &) const = 0;
  virtual void layer_norm(const LayerNormBackward &) const = 0;
  virtual void rms_norm(const RmsNormForward &) const = 0;
  virtual void rms_norm(const RmsNormBackward &) const = 0;
  virtual void group_norm(const GroupNormForward &) const = 0;
  virtual void group_norm(const GroupNormBackward &) const = 0;
  virtual void l2_normalize(const L2NormalizeForward &) const = 0;
  virtual void l2_normalize(const L2NormalizeBackward &) const = 0;
  virtual void weight_norm(const WeightNormForward &) const = 0;
  virtual void weight_norm(const WeightNormBackward &) const = 0;
  virtual void batch_sums(const BatchSums &) const = 0;
  virtual void batch_squares(const BatchSquares &) const = 0;
  virtual void batch_norm(const BatchNormForward &) const = 0;
  virtual void batch_norm(const BatchNormTotals &) const = 0;
  virtual void batch_norm(const BatchNormBackward &) const = 0;
};

}  // namespace bireme
