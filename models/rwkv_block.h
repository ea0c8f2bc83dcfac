#pragma once

#include <string>
#include <vector>

#include "core/ops/sequences.h"
#include "core/ops/wkv/wkv.h"
#include "distributed/communicator.h"
#include "models/encoder_block.h"
#include "models/rwkv_options.h"

namespace bireme {

/// What one block carries from token to token, for B sequences: the last input of each of its halves, in the
/// compute type, and the state of the WKV operator. Its size does not depend on how much has been read.
struct RwkvLayerState {
  Tensor time_x, channel_x;  // [B, D]
  WkvState wkv;              // [B, A / tensor ranks]
};

/// The two branches of an RWKV-4 block (Peng et al. 2023, section 3.1). Residual additions and norms are the
/// caller's, who fuses them across branches and blocks. The operator that mixes tokens is a part of its own
/// (core/ops/wkv); what surrounds it is token shift, three products before and one after.
///
/// Over tensor ranks each holds a share of the channels of time mixing, WKV state included, and of the hidden
/// channels of channel mixing, whose gate each computes for its share of D. Every branch moves as many bytes
/// as one sum over ranks.
class RwkvBlock {
 public:
  RwkvBlock(ParameterSet& parameters, const std::string& prefix, int layer, const RwkvOptions& options,
            Communicator& tensor);

  const LayerNormParameters& norm1() const { return norm1_; }
  const LayerNormParameters& norm2() const { return norm2_; }

  /// @param y      [B·T, D], the first norm's result
  /// @param state  read and moved on by T tokens; null: each sequence starts empty
  /// @return       [B·T, D]
  Var time_mix(Tape& tape, const Var& y, const Sequences& sequences, RwkvLayerState* state) const;
  /// @param needed  [N] i32: rows that the result is wanted of, [N, D] then; undefined: all
  Var channel_mix(Tape& tape, const Var& y, const Sequences& sequences, RwkvLayerState* state,
                  const Tensor& needed = {}) const;

  RwkvLayerState empty_state(Memory& memory, std::int64_t sequences, DType type) const;

  /// The parameters of each half, for running it without a tape.
  struct TimeMix {
    Parameter *mix_k, *mix_v, *mix_r, *decay, *first, *key, *value, *receptance, *output;
  };
  struct ChannelMix {
    Parameter *mix_k, *mix_r, *key, *receptance, *value;
  };
  const TimeMix& time() const { return time_; }
  const ChannelMix& channel() const { return channel_; }

 private:
  Communicator& tensor_;
  LayerNormParameters norm1_;
  TimeMix time_{};
  LayerNormParameters norm2_;
  ChannelMix channel_{};
};

}  // namespace bireme
