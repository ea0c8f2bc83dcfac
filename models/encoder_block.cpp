#include "models/encoder_block.h"

#include <cmath>

namespace bireme {

LayerNormParameters add_layer_norm(ParameterSet& parameters, const std::string& prefix,
                                   std::int64_t channels) {
  constexpr auto kConstant = Initializer::Law::constant;
  Parameter& gain = parameters.add({.name = prefix + ".weight",
                                    .shape = {channels},
                                    .initial = {.law = kConstant, .value = 1},
                                    .decays = false});
  Parameter& bias = parameters.add({.name = prefix + ".bias",
                                    .shape = {channels},
                                    .initial = {.law = kConstant, .value = 0},
                                    .decays = false});
  return {.gain = &gain, .bias = &bias};
}

Initializer linear_weight_law(double init_std, std::int64_t in, std::int64_t out) {
  if (init_std > 0) return {.law = Initializer::Law::normal, .value = init_std};
  return {.law = Initializer::Law::uniform, .value = std::sqrt(6.0 / static_cast<double>(in + out))};
}

namespace {

LinearOptions linear_options(std::string name, std::int64_t in, std::int64_t out, double init_std,
                             int blocks = 1) {
  return {.name = std::move(name),
          .in = in,
          .out = out,
          .weight = linear_weight_law(init_std, in, out),
          .bias = {},
          .blocks = blocks};
}

}  // namespace

EncoderBlock::EncoderBlock(ParameterSet& parameters, const std::string& prefix,
                           const EncoderBlockOptions& options, Communicator& tensor)
    : norm1_(add_layer_norm(parameters, prefix + "norm1", options.channels)),
      qkv_(parameters,
           linear_options(prefix + "attn.qkv", options.channels, 3 * options.channels, options.init_std, 3),
           tensor),
      proj_(parameters,
            linear_options(prefix + "attn.proj", options.channels, options.channels, options.init_std),
            tensor),
      norm2_(add_layer_norm(parameters, prefix + "norm2", options.channels)),
      fc1_(parameters, linear_options(prefix + "mlp.fc1", options.channels, options.hidden, options.init_std),
           tensor),
      fc2_(parameters, linear_options(prefix + "mlp.fc2", options.hidden, options.channels, options.init_std),
           tensor),
      local_heads_(options.heads / tensor.size()) {}

Var EncoderBlock::attend(Tape& tape, const Var& y, const Segments& segments) const {
  return attention(tape, queries_keys_values(tape, y), local_heads_, segments);
}

}  // namespace bireme
