#pragma once

#include <cstdint>
#include <vector>

#include "core/ops/attention/causal_attention.h"
#include "core/ops/pointwise/rotary.h"

namespace bireme {

/// Sizes and kinds of a LLaMA-style decoder (Touvron et al. 2023).
struct LlamaOptions {
  std::int64_t vocabulary = 32000;  ///< V
  std::int64_t channels = 4096;     ///< D
  std::int64_t hidden = 0;          ///< F, width of the SwiGLU; 0: 8/3 of D, rounded up to a multiple of 64
  int layers = 32;
  int heads = 32;             ///< H, query heads
  int kv_heads = 0;           ///< G, key and value heads; 0: H
  std::int64_t head_dim = 0;  ///< d; 0: D / H
  float epsilon = 1e-5F;      ///< of the norms
  bool attention_bias = false, mlp_bias = false;
  bool tie_embeddings = false;
  std::int64_t context = 2048;  ///< tokens that the model was made for; more are possible
  RotaryOptions rotary = {};
  double init_std = 0.02;
  bool scaled_residual = false;  ///< what adds to the residual stream starts smaller by 1 / √(2 · layers)

  std::int64_t hidden_width() const { return hidden > 0 ? hidden : (8 * channels / 3 / 64 + 1) * 64; }
  std::int64_t head_width() const { return head_dim > 0 ? head_dim : channels / heads; }
  /// Of all ranks together.
  AttentionHeads attention_heads() const {
    return {.queries = heads, .keys = kv_heads > 0 ? kv_heads : heads, .dimension = head_width()};
  }
  /// V·D·(1 or 2) + Λ·(D·d·(2H + 2G) + 3·D·F + 2D) + D, and the biases.
  std::int64_t parameter_count() const;
  /// @throws Error (usage) naming the first setting that cannot be
  void validate() const;
};

}  // namespace bireme
