#pragma once

#include <cstdint>
#include <span>

#include "core/tensor/types.h"

namespace bireme {

enum class Reduce : std::uint8_t { sum, max, min };

const char* to_string(Reduce reduce);

/// A run of host memory holding elements of one type: what collectives cut into pieces.
struct Elements {
  std::byte* data = nullptr;
  std::int64_t count = 0;
  DType type = DType::f32;

  std::int64_t bytes() const { return count * static_cast<std::int64_t>(size_of(type)); }
  Elements slice(std::int64_t begin, std::int64_t length) const {
    return {data + begin * static_cast<std::int64_t>(size_of(type)), length, type};
  }
};

/// out[i] = ((s0[i] + s1[i]) + s2[i]) + …, in the order of `sources`, so that whoever computes it gets the
/// same bits. bf16 is added in fp32 and rounded once. `out` may be one of the sources.
/// @throws Error (other) for u8, which has no reduction
void reduce_in_order(std::span<const std::byte* const> sources, const Elements& out, Reduce reduce);

}  // namespace bireme
