#include "models/llama_block.h"

#include <cmath>

#include "core/ops/pointwise/pointwise.h"

namespace bireme {

Parameter& add_rms_norm(ParameterSet& parameters, const std::string& name, std::int64_t channels) {
  return parameters.add({.name = name,
                         .shape = {channels},
                         .initial = {.law = Initializer::Law::constant, .value = 1},
                         .decays = false});
}

namespace {

Initializer weight_law(const LlamaOptions& options, bool adds_to_stream) {
  const double shrink = options.scaled_residual && adds_to_stream ? 1 / std::sqrt(2.0 * options.layers) : 1;
  return {.law = Initializer::Law::normal, .value = options.init_std * shrink};
}

LinearOptions qkv_options(const std::string& prefix, const LlamaOptions& options) {
  const AttentionHeads heads = options.attention_heads();
  return {.name = prefix + "self_attn.qkv_proj",
          .in = options.channels,
          .out = heads.channels(),
          .weight = weight_law(options, false),
          .bias = {},
          .blocks = {heads.queries, heads.keys, heads.keys},
          .has_bias = options.attention_bias};
}

LinearOptions output_options(const std::string& prefix, const LlamaOptions& options) {
  const AttentionHeads heads = options.attention_heads();
  return {.name = prefix + "self_attn.o_proj",
          .in = heads.queries * heads.dimension,
          .out = options.channels,
          .weight = weight_law(options, true),
          .bias = {},
          .has_bias = options.attention_bias};
}

LinearOptions mlp_options(const std::string& name, const LlamaOptions& options, bool is_down) {
  const std::int64_t width = options.hidden_width();
  return {.name = name,
          .in = is_down ? width : options.channels,
          .out = is_down ? options.channels : 2 * width,
          .weight = weight_law(options, is_down),
          .bias = {},
          .blocks = is_down ? 1 : 2,
          .has_bias = options.mlp_bias};
}

}  // namespace

LlamaBlock::LlamaBlock(ParameterSet& parameters, const std::string& prefix, const LlamaOptions& options,
                       Communicator& tensor)
    : norm1_(add_rms_norm(parameters, prefix + "input_layernorm.weight", options.channels)),
      qkv_(parameters, qkv_options(prefix, options), tensor),
      output_(parameters, output_options(prefix, options), tensor),
      norm2_(add_rms_norm(parameters, prefix + "post_attention_layernorm.weight", options.channels)),
      gate_up_(parameters, mlp_options(prefix + "mlp.gate_up_proj", options, false), tensor),
      down_(parameters, mlp_options(prefix + "mlp.down_proj", options, true), tensor) {}

Var LlamaBlock::mlp(Tape& tape, const Var& y) const {
  return down_.forward(tape, silu_gate(tape, gate_up_.forward(tape, y)));
}

}  // namespace bireme
