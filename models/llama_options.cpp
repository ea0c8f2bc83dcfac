#include "models/llama_options.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"

namespace bireme {

std::int64_t LlamaOptions::parameter_count() const {
  const AttentionHeads of = attention_heads();
  const std::int64_t attended = of.queries * of.dimension, width = hidden_width();
  std::int64_t block = channels * (of.channels() + attended) + 3 * channels * width + 2 * channels;
  if (attention_bias) block += of.channels() + channels;
  if (mlp_bias) block += 2 * width + channels;
  return vocabulary * channels * (tie_embeddings ? 1 : 2) + layers * block + channels;
}

void LlamaOptions::validate() const {
  const auto refuse = [](const std::string& problem, const char* where, const char* remedy) {
    throw Error(ErrorKind::usage, problem, where, remedy);
  };
  if (vocabulary < 1 || channels < 1 || layers < 1 || heads < 1 || hidden < 0 || head_dim < 0)
    refuse("sizes of a model are at least 1", "model", "correct the sizes");
  const int keys = attention_heads().keys;
  if (kv_heads < 0 || heads % keys != 0)
    refuse(fmt::format("{} query heads cannot share {} key and value heads evenly", heads, kv_heads),
           "model.kv_heads", "choose a divisor of model.heads");
  if (head_dim == 0 && channels % heads != 0)
    refuse(fmt::format("{} channels do not divide by {} heads", channels, heads), "model.heads",
           "choose a divisor of the channels, or give model.head_dim");
  if (head_width() % 2 != 0)
    refuse(fmt::format("heads of {} channels cannot be rotated in pairs", head_width()), "model.head_dim",
           "choose an even width");
  (void)rotary_frequencies(rotary, head_width(), context);
}

}  // namespace bireme
