#pragma once

#include "core/ops/slstm/slstm.h"

namespace bireme {

struct SlstmSizes {
  std::int64_t sequences, time, heads, units;  // B, T, H, D

  /// Numbers that a head keeps of a position for the way back: i', f', z, o, df'/df̃ (without f'), c, n, for
  /// the classical cell tanh(c) in place of n.
  std::int64_t kept() const { return 7 * units; }
};

/// Tensors of a state, each [B, H·D]; all undefined for a state of zeros.
struct SlstmStateTensors {
  Tensor h, c, n, m;
};

struct SlstmForward {
  const Tensor& gates;             // [B·T, H·4·D] fp32 (fp64)
  const Tensor &recurrent, &bias;  // [H, 4·D, D], [4·H·D]
  const Tensor& starts;            // [B, T] u8, or undefined
  const SlstmStateTensors &before, &after;
  const Tensor& h;       // [B·T, H·D], compute type
  const Tensor& hidden;  // [B·T, H·D]: h in fp32 (fp64), or undefined
  const Tensor& kept;    // [B·T, H·kept()], or undefined
  SlstmSizes sizes;
  SlstmFunction function;
};

/// Backwards in time, with m a constant and adjoints dh (from above and from the step after), dc, dn carried:
///     dc += dh·o / n,  dn -= dh·h / n,   dĩ = i'·(dc·z + dn),  df̃ = f'·(dc·c_{t-1} + dn·n_{t-1})·σ(-f̃),
///     dz̃ = dc·i'·(1 - z²),  dõ = dh·h·(1 - o),   dR += dgates ⊗ h_{t-1},  dh_{t-1} = Rᵀ·dgates,
///     dc ← f'·dc,  dn ← f'·dn
struct SlstmBackward {
  const Tensor& dh;                 // or undefined
  const SlstmStateTensors& dafter;  // h, c, n: each may be undefined
  const Tensor& recurrent;
  const Tensor& starts;
  const SlstmStateTensors& before;
  const Tensor &hidden, &kept;
  SlstmSizes sizes;
  SlstmFunction function;
  Target dgates, drecurrent, dbias;
  Target dbefore_h, dbefore_c, dbefore_n;
};

class SlstmKernels {
 public:
  virtual ~SlstmKernels() = default;
  virtual void slstm(const SlstmForward&) const = 0;
  virtual void slstm(const SlstmBackward&) const = 0;
};

}  // namespace bireme
