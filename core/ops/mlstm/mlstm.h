#pragma once

#include "core/autograd/tape.h"
#include "core/ops/sequences.h"

namespace bireme {

/// Matrix memory of the mLSTM (Beck et al. 2024, eq. 19 to 27) in its stabilised form: C̃ = C·exp(-m),
/// ñ = n·exp(-m). Keys are stored as they are; the queries carry the factor 1/√dk.
struct MlstmState {
  Var memory;      ///< C̃ [B, H, dk, dv], fp32 (fp64)
  Var normalizer;  ///< ñ [B, H, dk]
  Tensor maximum;  ///< m [B, H]: no gradient, since nothing depends on how the scale is shared out
};

/// What an mLSTM reads. Heads are consecutive channels.
struct MlstmInputs {
  const Var& q;  ///< [B·T, H·dk]: fp32, bf16 (sums in fp32) or fp64
  const Var& k;  ///< [B·T, H·dk]
  const Var& v;  ///< [B·T, H·dv]
  const Var& gates;  ///< [B·T, 2·H] fp32 (fp64): logarithms ĩ of the input gates, then logits f̃ of the forget
                     ///< gates
};

struct MlstmOptions {
  std::int64_t sequences = 1;  ///< B
  std::int64_t heads = 1;      ///< H
  /// Positions that are handled as one quadratic block. Of no influence on results beyond rounding.
  std::int64_t chunk = 64;
  float epsilon = 1e-6f;  ///< added to the stabilised denominator
  /// False leaves the denominator out of the gradients, as the published kernels do: right up to epsilons
  /// where a norm over each head follows, which hides the denominator.
  bool normalizer_gradient = true;
};

struct MlstmResult {
  Var h;  ///< [B·T, H·dv], type of q
  MlstmState state;
};

/// The mLSTM over a sequence, chunk by chunk: parallel over chunks but for one pass that carries the state,
/// time and memory linear in T. Per head
///     C_t = σ(f̃_t)·C_{t-1} + exp(ĩ_t)·k_t·v_tᵀ,   n_t = σ(f̃_t)·n_{t-1} + exp(ĩ_t)·k_t,
///     h_t = C_tᵀ·q_t / max(|n_t·q_t|, 1)   with q already divided by √dk,
/// where exponents never exceed 0 (m_t = max(log σ(f̃_t) + m_{t-1}, ĩ_t), m_0 = 0 in every form).
/// @param initial  state before the first token, or null for an empty one
/// @param starts   [B, T] u8, 1 where a document begins: the cell is empty there. Undefined: nowhere
/// @throws Error   when the shapes do not fit together
MlstmResult mlstm(Tape& tape, const MlstmInputs& inputs, const MlstmState* initial, const Tensor& starts,
                  const MlstmOptions& options);

/// The same over documents that branch: a branch goes on from the state that its trunk ends in.
/// @param initial  state before each document (of one sequence), or null for an empty one
/// @return         h
Var mlstm_of_documents(Tape& tape, const MlstmInputs& inputs, const MlstmState* initial,
                       const std::vector<Branching>& documents, const MlstmOptions& options);

/// An empty state: C̃ = 0, ñ = 0, m = 0.
/// @param type  fp32, or fp64 in checks
MlstmState empty_mlstm_state(Memory& memory, std::int64_t sequences, std::int64_t heads, std::int64_t keys,
                             std::int64_t values, DType type);

/// One token of each sequence, for inference: q, k [B, H·dk], v [B, H·dv], gates [B, 2·H]. Moves `state` on
/// in place.
/// @return  h [B, H·dv], type of q
Tensor mlstm_step(const Backend& backend, const MlstmInputs& inputs, const MlstmState& state, float epsilon);

}  // namespace bireme
