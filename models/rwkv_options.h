#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/autograd/parameter.h"

namespace bireme {

struct RwkvOptions {
  std::int64_t vocabulary = 50277;      ///< V
  std::int64_t channels = 768;          ///< D
  int layers = 12;                      ///< L
  std::int64_t attention_channels = 0;  ///< A, width inside time mixing; 0: D
  std::int64_t hidden = 0;              ///< H, width inside channel mixing; 0: 4·D
  std::int64_t context = 1024;          ///< sequences that it is trained on; no limit
  float layer_norm_epsilon = 1e-5f;     ///< of the blocks; the last norm always has 1e-5
  /// R > 0: in inference, the epsilon of norms after R, 2R, … blocks is 4, 16, … times as large. This is what
  /// halving the residual stream there comes to, as published implementations do lest fp16 overflow.
  int rescale_every = 0;
  bool tie_embeddings = false;  ///< the head reads the embedding's weight
  /// Half width of the uniform law of initial embeddings. Small: the first layer norm restores the scale, and
  /// from there a step moves each embedding far (Peng et al. 2023, section 3.4).
  double embedding_range = 1e-4;
  /// Learning rates over the optimiser's. Five times each in later stages of the published training.
  double time_mix_rate = 1, time_decay_rate = 2, time_first_rate = 3;

  std::int64_t inner() const { return attention_channels > 0 ? attention_channels : channels; }
  std::int64_t ffn() const { return hidden > 0 ? hidden : 4 * channels; }
  /// 2·V·D + 4·D + L·(4·A·D + 2·H·D + D² + 2·A + 9·D), V·D less where embeddings are tied.
  std::int64_t parameter_count() const;
  /// @throws Error (usage) naming the first setting that cannot be
  void validate() const;
};

/// The published sizes "169m", "430m", "1.5b", "3b", "7b" and "14b" (Peng et al. 2023, table 2).
/// @throws Error (usage) for another name
RwkvOptions rwkv_size(const std::string& name);

/// Initial values of the vectors of block `layer` (Peng et al. 2023, appendix E, as its training code has
/// them).
struct RwkvInitialValues {
  std::vector<double> time_decay, time_first;              // [A]
  std::vector<double> time_mix_k, time_mix_v, time_mix_r;  // [D], time mixing
  std::vector<double> channel_mix_k, channel_mix_r;        // [D], channel mixing
};
RwkvInitialValues rwkv_initial_values(const RwkvOptions& options, int layer);

}  // namespace bireme
