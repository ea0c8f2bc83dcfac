#pragma once

#include <vector>

#include "core/autograd/tape.h"
#include "core/ops/sequences.h"

namespace bireme {

/// m_i = x⁻ + μ_i ∘ (x - x⁻), x⁻ the token before.
struct TokenShiftForward {
  const Sequences& sequences;
  const Tensor& x;                   // [B·T, C], compute type
  const std::vector<Tensor>& mu;     // [C] each
  const Tensor& carried;             // [B, C], in and out; or undefined
  const std::vector<Tensor>& mixed;  // [B·T, C] each
};

/// dx[t] = Σ_i μ_i ∘ dm_i[t] + (1 - μ_i) ∘ dm_i[t + 1],   dμ_i = Σ_t dm_i ∘ (x - x⁻)
/// where t + 1 counts only within the document.
struct TokenShiftBackward {
  const Sequences& sequences;
  const std::vector<Tensor>& dmixed;  // all defined
  const Tensor& x;
  const std::vector<Tensor>& mu;
  const Tensor& before;  // [B, C], what `carried` was; or undefined
  Target dx;
  const std::vector<Target>& dmu;
  Target dbefore = {};  // [B, C]: Σ_i (1 - μ_i) ∘ dm_i[0]
};

class TokenShiftKernels {
 public:
  virtual ~TokenShiftKernels() = default;
  virtual void token_shift(const TokenShiftForward&) const = 0;
  virtual void token_shift(const TokenShiftBackward&) const = 0;
};

}  // namespace bireme
