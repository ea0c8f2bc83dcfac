#pragma once

#include "core/autograd/tape.h"
#include "core/ops/sequences.h"

namespace bireme {

enum class SlstmFunction {
  slstm,  ///< exponential input gate with a normaliser, forget gate σ
  lstm    ///< the classical cell (Hochreiter and Schmidhuber 1997, with forget gate), for comparison
};

/// State of the sLSTM (Beck et al. 2024, eq. 8 to 18), scaled by exp(-m). Each [B, H·D] in fp32 (fp64).
struct SlstmState {
  Var h, c, n;
  Tensor m;  ///< no gradient: nothing depends on how the scale is shared out
};

struct SlstmOptions {
  std::int64_t sequences = 1;  ///< B
  std::int64_t heads = 1;      ///< H
  SlstmFunction function = SlstmFunction::slstm;
};

struct SlstmResult {
  Var h;  ///< [B·T, H·D] in `type`
  SlstmState state;
};

/// The sLSTM over a sequence: per head, with R_h mixing the units of a head from step to step,
///     (ĩ, f̃, z̃, õ)_t = gates_t + h_{t-1}·R_h + b_h,   z = tanh(z̃),   o = σ(õ),
///     m_t = max(log σ(f̃) + m_{t-1}, ĩ)  (ĩ where n_{t-1} = 0),   i' = exp(ĩ - m_t),   f' = exp(log σ(f̃) +
///     m_{t-1} - m_t), c_t = f'·c_{t-1} + i'·z,   n_t = f'·n_{t-1} + i',   h_t = o·c_t / n_t;
/// the classical cell has c_t = σ(f̃)·c_{t-1} + σ(ĩ)·z, h_t = o·tanh(c_t). Sequential in T, parallel over
/// heads.
/// @param gates      [B·T, H·4·D] fp32 (fp64): W·x of each head, gate by gate in the order i, f, z, o
/// @param recurrent  R [H, 4·D, D]: rows are gates and units, columns the units of h_{t-1} (vanilla layout)
/// @param bias       b [4·H·D]: gate, head, unit
/// @param initial    state before the first token, or null: all zero
/// @param starts     [B, T] u8, 1 where a document begins: the state is zero there. Undefined: nowhere
/// @param type       of h: the compute type
SlstmResult slstm(Tape& tape, const Var& gates, Parameter& recurrent, Parameter& bias,
                  const SlstmState* initial, const Tensor& starts, const SlstmOptions& options, DType type);

/// The same over documents that branch: each starts with a state of zeros, and a branch goes on from the
/// state that its trunk ends in.
/// @return  h
Var slstm_of_documents(Tape& tape, const Var& gates, Parameter& recurrent, Parameter& bias,
                       const std::vector<Branching>& documents, const SlstmOptions& options, DType type);

/// All zero.
SlstmState empty_slstm_state(Memory& memory, std::int64_t sequences, std::int64_t channels, DType type);

}  // namespace bireme
