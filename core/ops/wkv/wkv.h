#pragma once

#include "core/autograd/tape.h"
#include "core/ops/sequences.h"

namespace bireme {

/// What the WKV operator carries from token to token, for each sequence and channel: the sums A = a·e^p and
/// B = b·e^p of the formula below. Kept in fp32 (fp64 for fp64) whatever the compute type: slow decays are
/// factors like 0.9999.
struct WkvState {
  Tensor a, b, p;  // [B, C] each
};

/// An empty state: (0, 0, -1e38). The exponent is finite, since the difference of two infinite ones is NaN.
WkvState empty_wkv_state(Memory& memory, std::int64_t sequences, std::int64_t channels,
                         DType type = DType::f32);

/// A state on the tape. Its gradient belongs to a and b with p held constant, which says all there is to say:
/// nothing depends on how A is split into a and e^p.
struct WkvCarry {
  Var a, b;
  Tensor p;  ///< undefined: the empty state
};

struct WkvArguments {
  const Sequences& sequences;
  const Var &r, &k, &v;     ///< [B·T, C], compute type; r before its sigmoid
  Parameter& time_decay;    ///< [C]: w = -exp(time_decay)
  Parameter& time_first;    ///< [C]: u
  WkvCarry initial = {};    ///< state before the first token
  bool wants_last = false;  ///< whether the state after the last token is asked for
};

struct WkvResult {
  Var y;          ///< [B·T, C], type of v
  WkvCarry last;  ///< empty unless asked for
};

/// The gated WKV operator of RWKV-4 (Peng et al. 2023, eq. 16): for each sequence and channel
///
///                   Σ_{s<t} e^{(t-1-s)w + k_s} v_s + e^{u+k_t} v_t
///     y_t = σ(r_t) ───────────────────────────────────────────────── ,   w = -e^{time_decay} < 0
///                   Σ_{s<t} e^{(t-1-s)w + k_s}     + e^{u+k_t}
///
/// a weighted mean of v, computed so that no exponent is ever positive. Cost and memory are linear in T,
/// which has no bound: for the way back only the state at every kWkvChunk-th token is kept. Where there are
/// few sequences and channels the chunks run beside each other (an associative scan); the choice depends on
/// the shape alone. Gradients are exact at any T, those of time_decay and time_first summed over batch and
/// time in a fixed order. Documents that branch start empty; a state before or after them is not handed out.
/// @throws Error (data) when a size does not fit
WkvResult wkv(Tape& tape, const WkvArguments& arguments);

}  // namespace bireme
