#pragma once

#include <vector>

#include "core/tensor/tensor.h"

namespace bireme {

/// Rows of a tensor [R, C] that share a beginning: first a trunk, then branches one after another, each of
/// which goes on where the trunk ends and knows nothing of the others. A prompt and its answers, computed
/// once for all of them.
struct Branching {
  std::int64_t begin = 0;                   ///< the first row
  std::int64_t trunk = 0;                   ///< its length, which may be 0
  std::vector<std::int64_t> branches = {};  ///< their lengths

  /// Rows that follow each other; a branch goes on from the last row of the trunk.
  struct Piece {
    std::int64_t begin, length;
    bool is_branch;
  };
  /// Trunk and branches in their order, without the empty ones.
  std::vector<Piece> pieces() const {
    std::vector<Piece> found;
    if (trunk > 0) found.push_back({begin, trunk, false});
    std::int64_t next = begin + trunk;
    for (const std::int64_t length : branches) {
      if (length > 0) found.push_back({next, length, true});
      next += length;
    }
    return found;
  }
  std::int64_t rows() const {
    std::int64_t total = trunk;
    for (const std::int64_t length : branches) total += length;
    return total;
  }
};

/// How sequences lie in the rows of a tensor [R, C] that a recurrent operator reads: token t of sequence b is
/// row b·length + t.
struct Sequences {
  std::int64_t count = 0;   ///< B
  std::int64_t length = 0;  ///< T
  /// [B, T] u8 on the host, 1 at the first token of a document, which sees nothing of what stands before it.
  /// Undefined: each sequence is one document, or the middle of one where a state is handed in.
  Tensor starts = {};
  /// Documents that branch, in place of sequences: they make up all rows, and count is 1.
  std::vector<Branching> documents = {};

  std::int64_t rows() const { return count * length; }
  /// The starts of sequence b, or null.
  const std::uint8_t* starts_of(std::int64_t b) const {
    return starts ? starts.data<std::uint8_t>() + b * length : nullptr;
  }
};

}  // namespace bireme
