#pragma once

#include <cstdint>
#include <string>

#include "core/ops/pointwise/pointwise.h"
#include "core/ops/slstm/slstm.h"

namespace bireme {

enum class XlstmArchitecture {
  paper,  ///< blocks of mLSTM and sLSTM (Beck et al. 2024)
  large   ///< mLSTM and feed-forward layer in every block (xLSTM 7B, 2025)
};

/// What the mLSTM reads with its queries.
enum class XlstmMemory {
  associative,     ///< the matrix that keys and values write
  learned,         ///< a learned matrix in its place, the same at every position: no keys, values and gates
  learned_initial  ///< the associative one, beginning with a learned state instead of an empty one
};

enum class SlstmBiasLaw { powerlaw_blockdependent, small_init, standard };

struct XlstmOptions {
  XlstmArchitecture architecture = XlstmArchitecture::large;
  std::int64_t vocabulary = 0;  ///< V
  std::int64_t channels = 128;  ///< D
  std::int64_t context = 0;     ///< what it was made for; nothing depends on it
  int layers = 1;               ///< blocks
  int heads = 4;                ///< of mLSTM blocks
  XlstmMemory memory = XlstmMemory::associative;
  std::int64_t chunk = 64;  ///< of the chunkwise form; no influence on results beyond rounding
  bool tied = false;        ///< the head shares the embedding's weight

  // Architecture of the paper.
  std::string pattern = "m";     ///< of blocks, m and s, repeated up to `layers`
  int slstm_heads = 0;           ///< 0: as `heads`
  int convolution = 4;           ///< K of mLSTM blocks
  int slstm_convolution = 4;     ///< K of sLSTM blocks; 0: none
  int projection_block = 4;      ///< channels that a block of q, k and v mixes
  double projection_factor = 2;  ///< inner width of mLSTM blocks over D, rounded up to a multiple of 64
  double slstm_ffn_factor =
      1.3;  ///< width of the feed-forward part after an sLSTM over D, rounded up likewise
  Activation activation = Activation::gelu;
  SlstmFunction function = SlstmFunction::slstm;
  SlstmBiasLaw slstm_bias = SlstmBiasLaw::powerlaw_blockdependent;
  bool slstm_random_recurrent = false;  ///< R uniform in ±1/√D of a head instead of 0
  bool last_norm = true;

  // Large architecture.
  double key_factor = 0.5, value_factor = 1;  ///< widths of queries and keys, and of values, over D
  double ffn_factor = 2.667;                  ///< rounded up to a multiple of ffn_multiple
  std::int64_t ffn_multiple = 64;
  double gate_soft_cap = 15, logit_soft_cap = 30;
  double norm_epsilon = 1e-6;
  double input_gate_bias = -10;

  double cell_epsilon = 1e-6;
  /// Width of feed-forward parts where the factor is not to decide; 0: the factor.
  std::int64_t hidden_width = 0;

  bool is_slstm(int block) const {
    return architecture == XlstmArchitecture::paper &&
           pattern[static_cast<std::size_t>(block) % pattern.size()] == 's';
  }
  std::int64_t inner() const;         ///< D' of the paper's mLSTM
  std::int64_t slstm_hidden() const;  ///< F of the paper's feed-forward part
  std::int64_t keys() const;          ///< all heads' widths together
  std::int64_t values() const;
  std::int64_t large_hidden() const;
  int heads_of_slstm() const { return slstm_heads == 0 ? heads : slstm_heads; }
  /// @throws Error (usage) naming the first setting that cannot be
  void validate() const;
};

}  // namespace bireme
