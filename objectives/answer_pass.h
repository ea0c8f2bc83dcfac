#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/data/answer_dataset.h"
#include "core/tensor/tensor.h"

namespace bireme {

/// A prompt with one of its answers as a document among the rows of a pass.
struct PlacedDocument {
  std::size_t record = 0, answer = 0;  ///< which of the records, which of its answers
  std::int64_t first_row = 0, prompt = 0, length = 0;

  std::int64_t last_row() const { return first_row + length - 1; }
  /// The first token that is scored: the first of the answer, or the second of a text without a prompt.
  std::int64_t first_scored() const { return std::max<std::int64_t>(prompt, 1); }
};

/// Documents one after another, without padding.
struct AnswerPass {
  Tensor tokens;  ///< [1, R] i32
  Tensor starts;  ///< [1, R] u8: 1 at the first token of a document
  std::vector<PlacedDocument> documents;
};

/// Lays all answers of the records out in passes of at most `budget` rows; a longer one has one to itself.
/// @param memory  of the host
void for_each_pass(std::span<const AnswerRecord> records, std::int64_t budget, Memory& memory,
                   const std::function<void(const AnswerPass& pass)>& use);

}  // namespace bireme
