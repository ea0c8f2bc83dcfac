#pragma once

#include "core/autograd/tape.h"

namespace bireme {

/// B sequences of T tokens, H heads with keys of dk and values of dv numbers, cut into chunks.
struct MlstmSizes {
  std::int64_t sequences, time, heads, keys, values, chunk;

  std::int64_t chunks() const { return (time + chunk - 1) / chunk; }
  /// Rows of kept states are padded to a multiple of 16 numbers, so that kernels need no tails.
  static std::int64_t padded(std::int64_t count) { return (count + 15) / 16 * 16; }
  /// Numbers of a kept state: C̃ [dk, padded dv], then ñ [padded dk].
  std::int64_t state() const { return keys * padded(values) + padded(keys); }
};

/// What the way forward leaves for the way back, in fp32 (fp64). Within a chunk, and counted from the last
/// start of a document if there is one: b_t = Σ log σ(f̃), w_s = ĩ_s - b_s, p_t = max of m before the chunk
/// and of w_s over s ≤ t. The weight of position s in t is exp(w_s - p_t), the stabiliser μ_t = b_t + p_t.
struct MlstmSaved {
  Tensor states;       // [B, H, N + 1, sizes.state()]: before each chunk, and after the last
  Tensor maxima;       // [B, H, N + 1]: their m
  Tensor gates;        // [B, H, 3, T]: b, w, p
  Tensor denominator;  // [B, H, T]: max(|l|, exp(-μ)) + epsilon, l the normaliser
  Tensor slope;        // [B, H, T]: its derivative with respect to l: -1, 0 or 1
};

struct MlstmForward {
  const Tensor &q, &k, &v, &gates;
  const Tensor &starts;                                     // [B, T] u8, or undefined
  const Tensor &memory, &normalizer, &maximum;              // state before the first token, or undefined
  const Tensor &h;                                          // [B·T, H·dv]
  const Tensor &memory_out, &normalizer_out, &maximum_out;  // state after the last token
  const MlstmSaved &saved;
  MlstmSizes sizes;
  float epsilon;
};

/// With N_t = dh_t / den_t, λ_t = -(dh_t·h_t) / den_t · slope_t, weights D_ts = exp(w_s - p_t) (0 for s > t
/// and across documents), S_ts = D_ts·(q_t·k_s), P_ts = D_ts·(N_t·v_s + λ_t), β_t the weight of the state
/// before the chunk and γ_s that of position s in the state after it, q including 1/√dk:
///     dq_t = (β_t·(C·N_t + n·λ_t) + Σ_s P_ts·k_s) / √dk
///     dk_s = Σ_t P_ts·q_t + γ_s·(dC'·v_s + dn')
///     dv_s = Σ_t S_ts·N_t + γ_s·dC'ᵀ·k_s
///     dC = decay·dC' + Σ_t β_t·q_t·N_tᵀ,   dn = decay·dn' + Σ_t β_t·q_t·λ_t
///     dĩ_s = k_s·dk_s,   df̃_j = σ(-f̃_j)·(Σ_{t≥j} (q_t·dq_t - k_t·dk_t) + <dC_T, C_T> + <dn_T, n_T>)
/// where the last sum ends with the document. The stabilisers are constants: nothing depends on them.
struct MlstmBackward {
  const Tensor &dh;
  const Tensor &dmemory_out, &dnormalizer_out;  // or undefined
  const Tensor &q, &k, &v, &gates, &starts, &h;
  const MlstmSaved &saved;
  MlstmSizes sizes;
  bool normalizer_gradient;
  Target dq, dk, dv, dgates;
  Target dmemory, dnormalizer;  // of the state before the first token
};

struct MlstmStep {
  const Tensor &q, &k, &v, &gates;              // one row a sequence
  const Tensor &memory, &normalizer, &maximum;  // moved on in place
  const Tensor &h;
  float epsilon;
};

class MlstmKernels {
 public:
  virtual ~MlstmKernels() = default;
  virtual void mlstm(const MlstmForward &) const = 0;
  virtual void mlstm(const MlstmBackward &) const = 0;
  virtual void step(const MlstmStep &) const = 0;
};

}  // namespace bireme
