#pragma once

#include <string>

#include "models/xlstm_block.h"

namespace bireme {

/// The memory that the queries of an mLSTM layer read: the associative one, or what an ablation puts in its
/// place. Keys and values come as functions, since a learned memory has none.
class MlstmMemory {
 public:
  struct Options {
    XlstmMemory kind = XlstmMemory::associative;
    int heads = 1;
    std::int64_t keys = 0, values = 0;  ///< of one head
    std::int64_t chunk = 64;
    float epsilon = 1e-6f;
  };
  /// Registers PREFIX.memory and, for a learned initial state, PREFIX.normalizer.
  MlstmMemory(ParameterSet& parameters, const std::string& prefix, const Options& options,
              Communicator& tensor);

  bool is_learned() const { return options_.kind == XlstmMemory::learned; }
  /// h [B·T, H·dv] of the heads held by this rank. @param k, v, gates  ignored by a learned memory
  Var read(Tape& tape, const Var& q, const Var& k, const Var& v, const Var& gates,
           const XlstmPass& pass) const;
  MlstmState make_state(Memory& memory, std::int64_t sequences, DType type) const;
  /// Two per multiply-add, of all ranks' heads.
  double flops_per_token() const;

 private:
  Options options_;
  int local_heads_;
  Parameter* memory_ = nullptr;      // [H, dk, dv]
  Parameter* normalizer_ = nullptr;  // [H, dk]
};

}  // namespace bireme
