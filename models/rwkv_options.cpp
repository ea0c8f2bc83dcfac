#include "models/rwkv_options.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <cmath>

#include "core/base/error.h"

namespace bireme {

std::int64_t RwkvOptions::parameter_count() const {
  const std::int64_t d = channels, a = inner(), h = ffn();
  const std::int64_t block = 4 * a * d + 2 * h * d + d * d + 2 * a + 9 * d;
  return (tie_embeddings ? 1 : 2) * vocabulary * d + 4 * d + layers * block;
}

void RwkvOptions::validate() const {
  const auto require = [](bool holds, const char* key, const auto& value, const char* remedy) {
    if (!holds) throw Error(ErrorKind::usage, fmt::format("{} is {}", key, value), "rwkv", remedy);
  };
  require(vocabulary > 0, "model.vocabulary", vocabulary, "give the size of the tokenizer's vocabulary");
  require(channels > 0, "model.channels", channels, "choose a positive width");
  require(layers > 0, "model.layers", layers, "choose at least 1 layer");
  require(attention_channels >= 0, "model.attention_channels", attention_channels,
          "choose a positive width, or 0 for that of the model");
  require(hidden >= 0, "model.hidden", hidden, "choose a positive width, or 0 for four times the model's");
  require(layer_norm_epsilon > 0, "model.layer_norm_epsilon", layer_norm_epsilon, "choose 1e-5");
  require(rescale_every >= 0, "model.rescale_every", rescale_every, "choose 0 to leave the stream as it is");
}

RwkvOptions rwkv_size(const std::string& name) {
  struct Size {
    const char* name;
    int layers;
    std::int64_t channels;
  };
  constexpr std::array<Size, 6> kSizes = {{{"169m", 12, 768},
                                           {"430m", 24, 1024},
                                           {"1.5b", 24, 2048},
                                           {"3b", 32, 2560},
                                           {"7b", 32, 4096},
                                           {"14b", 40, 5120}}};
  for (const Size& size : kSizes)
    if (name == size.name) return {.channels = size.channels, .layers = size.layers};
  throw Error(ErrorKind::usage, fmt::format("there is no RWKV of size `{}`", name), "rwkv",
              "choose 169m, 430m, 1.5b, 3b, 7b or 14b");
}

RwkvInitialValues rwkv_initial_values(const RwkvOptions& options, int layer) {
  const double up = options.layers > 1 ? static_cast<double>(layer) / (options.layers - 1) : 0;  // 0 … 1
  const double down = 1 - static_cast<double>(layer) / options.layers;                           // 1 … ~0
  const std::int64_t d = options.channels, a = options.inner();
  RwkvInitialValues values;
  for (std::int64_t c = 0; c < a; ++c) {
    const double share = a > 1 ? static_cast<double>(c) / static_cast<double>(a - 1) : 0;
    values.time_decay.push_back(-5 + 8 * std::pow(share, 0.7 + 1.3 * up));
    values.time_first.push_back(std::log(0.3) + 0.5 * static_cast<double>((c + 1) % 3 - 1));
  }
  for (std::int64_t c = 0; c < d; ++c) {
    const double share = static_cast<double>(c) / static_cast<double>(d);
    const double mix = std::pow(share, down);
    values.time_mix_k.push_back(mix);
    values.time_mix_v.push_back(mix + 0.3 * up);
    values.time_mix_r.push_back(std::pow(share, 0.5 * down));
    values.channel_mix_k.push_back(mix);
    values.channel_mix_r.push_back(mix);
  }
  return values;
}

}  // namespace bireme
