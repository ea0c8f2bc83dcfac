#pragma once

#include "core/tensor/tensor.h"

namespace bireme {

/// How sequences lie in the rows of a tensor [R, C] that a recurrent operator reads: token t of sequence b is
/// row b·length + t.
struct Sequences {
  std::int64_t count = 0;   ///< B
  std::int64_t length = 0;  ///< T
  /// [B, T] u8 on the host, 1 at the first token of a document, which sees nothing of what stands before it.
  /// Undefined: each sequence is one document, or the middle of one where a state is handed in.
  Tensor starts = {};

  std::int64_t rows() const { return count * length; }
  /// The starts of sequence b, or null.
  const std::uint8_t* starts_of(std::int64_t b) const {
    return starts ? starts.data<std::uint8_t>() + b * length : nullptr;
  }
};

}  // namespace bireme
