#include "models/llama_state.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cassert>

#include "core/base/error.h"

namespace bireme {

LlamaState::LlamaState(Memory& memory, int layers, std::int64_t sequences, const AttentionHeads& heads,
                       std::int64_t capacity, DType type)
    : memory_(memory),
      cache_(memory, {layers, 2, sequences, heads.keys, capacity, heads.dimension}, type),
      lengths_(static_cast<std::size_t>(sequences), 0) {}

LlamaState::LlamaState(const LlamaState& other)
    : DecodingState(other),
      memory_(other.memory_),
      cache_(bireme::clone(other.memory_, other.cache_)),
      lengths_(other.lengths_) {}

std::unique_ptr<DecodingState> LlamaState::clone() const {
  return std::unique_ptr<DecodingState>(new LlamaState(*this));
}

void LlamaState::truncate(std::int64_t b, std::int64_t n) {
  std::int64_t& length = lengths_[static_cast<std::size_t>(b)];
  assert(n >= 0 && n <= length);
  length = n;
}

void LlamaState::require_room(std::int64_t n) const {
  const std::int64_t longest = *std::max_element(lengths_.begin(), lengths_.end());
  if (longest + n <= capacity()) return;
  throw Error(
      ErrorKind::usage,
      fmt::format("{} tokens do not fit into a cache for {}, of which {} are read", n, capacity(), longest),
      "decoding", "ask for fewer new tokens, or for a larger capacity");
}

Tensor LlamaState::plane(int layer, int which) const {
  const Shape& s = cache_.shape();
  const Shape shape{s[2], s[3], s[4], s[5]};
  return cache_.view((2 * layer + which) * shape.elements(), shape);
}

}  // namespace bireme
