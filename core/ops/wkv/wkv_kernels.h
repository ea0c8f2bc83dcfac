#pragma once

#include "core/autograd/tape.h"
#include "core/ops/sequences.h"
#include "core/ops/wkv/wkv.h"

namespace bireme {

/// Tokens between two states that are kept for the way back.
inline constexpr std::int64_t kWkvChunk = 32;
inline std::int64_t wkv_chunks(std::int64_t length) { return (length + kWkvChunk - 1) / kWkvChunk; }

/// With the state (a, b, p) before token t (Peng et al. 2023, appendix C, and the gate):
///     m = max(p, u + k)    d = e^{p-m} b + e^{u+k-m}    y = σ(r) (e^{p-m} a + e^{u+k-m} v) / d
///     p' = max(p + w, k)   a' = e^{p+w-p'} a + e^{k-p'} v   b' = e^{p+w-p'} b + e^{k-p'}
struct WkvForward {
  const Sequences& sequences;
  const Tensor &r, &k, &v;                // [B·T, C], compute type
  const Tensor &time_decay, &time_first;  // [C], fp32 (fp64)
  const WkvState& initial;                // undefined tensors: empty
  const Tensor& y;                        // [B·T, C], compute type
  const Tensor& states;  // [B, chunks, 3, C] fp32 (fp64): a, b, p before each chunk; undefined: not kept
  const WkvState& last;  // after the last token; may be `initial` itself; undefined: not wanted
};

/// The adjoint (α, β) = (α̂, β̂)·e^ρ of (A, B) runs from the last token to the first. With g = σ(r) dy and
/// q = g / d:
///     e1 = q e^{u+k-m}    e2 = e^{k+ρ}
///     dv = e1 + e2 α̂      dk = e1 (v - ȳ) + e2 (α̂ v + β̂)     dr = dy ȳ σ'(r),   ȳ = y without the gate
///     du += e1 (v - ȳ)    dw += e^{ρ+w+p} (α̂ a + β̂ b)
///     ρ' = max(ρ + w, -m),  α̂' = e^{ρ+w-ρ'} α̂ + e^{-m-ρ'} q,  β̂' = e^{ρ+w-ρ'} β̂ - e^{-m-ρ'} q ȳ
/// No exponent is positive, since m at a later token is at least p, and p at least k decayed until there.
/// States, m, d and ȳ of a chunk are computed again from the state before it.
struct WkvBackward {
  const Sequences& sequences;
  const Tensor& dy;
  const Tensor &r, &k, &v;
  const Tensor &time_decay, &time_first;
  const Tensor& states;
  const WkvState& last_gradient;  // da and db of the last state (undefined: 0), and its p
  Target dr, dk, dv;
  Target dtime_decay, dtime_first;  // [C]
  const WkvState& initial;          // its p, where its gradient is wanted
  Target dinitial_a, dinitial_b;    // [B, C]
};

class WkvKernels {
 public:
  virtual ~WkvKernels() = default;
  virtual void wkv(const WkvForward&) const = 0;
  virtual void wkv(const WkvBackward&) const = 0;
};

}  // namespace bireme
