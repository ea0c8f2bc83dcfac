#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "core/tensor/tensor.h"

namespace bireme {

/// Crops of one resolution, normalised: pixels [crops · B, C, side, side] fp32, crop-major (row = crop · B +
/// image).
struct ImageGroup {
  Tensor pixels;
  int crops = 0;
  int side = 0;
};

/// The share of one global batch that this data rank works on. Groups hold runs of consecutive crops of equal
/// side: normally the two globals, then the locals.
struct ImageBatch {
  std::vector<std::int64_t> records;  ///< [B] record numbers, which key the random numbers of drop path
  std::vector<std::int32_t> labels;   ///< [B], -1 where the dataset has none
  std::uint64_t epoch = 0;
  std::int64_t global_count = 0;  ///< images of the batch over all data ranks
  std::vector<ImageGroup> groups;
};

/// The share of one global batch of text that this data rank works on: sequences of one length, cut from
/// documents that lie one after another, hence without padding.
struct TokenBatch {
  std::vector<std::int64_t> records;  ///< [B] record numbers
  std::uint64_t epoch = 0;
  std::int64_t global_count = 0;  ///< sequences of the batch over all data ranks and micro-batches
  Tensor tokens;                  ///< [B, T] i32: what the model reads
  Tensor targets;                 ///< [B, T] i32: the token after each; -1 where none is to be predicted
  /// [B, T] u8, 1 at the first token of a document: neither state nor attention reaches back across it.
  /// Undefined: documents see those before them.
  Tensor starts;
};

/// What an objective learns from in one pass.
using Batch = std::variant<ImageBatch, TokenBatch>;

}  // namespace bireme
