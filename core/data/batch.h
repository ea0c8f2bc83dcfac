#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "core/ops/sequences.h"
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

/// An answer as it lies in the rows of a pass.
struct PlacedAnswer {
  std::int64_t record = 0;    ///< in the dataset
  std::int64_t position = 0;  ///< among the answers of the optimiser step, over ranks and parts
  std::int64_t tokens = 0;    ///< n(y): how many are scored
  std::int64_t imitated = 0;  ///< how many tokens a likelihood term imitates
  std::int64_t prompt_begin = 0, prompt_length = 0;  ///< rows of the prompt
  std::int64_t prompt = 0;                           ///< equal for equal prompts of a step
  double reference = 0;                              ///< q(y), where the objective has a reference
  double reward = 0;                                 ///< normalised score, where it learns from scores
  bool liked = false;                                ///< label, where it learns from labels
};

/// A token whose log-probability counts.
struct ScoredToken {
  std::int32_t answer = 0;  ///< index of its answer in the pass
  bool counts = true;       ///< it is part of the answer's sum; a prompt's token is not
  bool imitated = false;    ///< a likelihood term imitates it
};

/// Prompts with their answers as the rows of one forward pass: documents one after another, without padding.
/// A prompt that answers share is there once, and branches into them. The last token of an answer predicts
/// nothing and has no row.
struct AnswerRows {
  Tensor tokens;  ///< [1, R] i32
  std::vector<Branching> documents;
  Tensor rows, targets;  ///< [N] i32 each: the row that predicts a scored token, and the token
  /// i32, ascending: the rows that anything is read from, where prompts are shared and these are not all; a
  /// model's last layer can leave out the others. Undefined: all.
  Tensor needed;
  Tensor places;                    ///< [N] i32: of `rows` among these
  std::vector<ScoredToken> scored;  ///< [N]
  std::vector<PlacedAnswer> answers;
};

/// The share of one global batch of prompts with answers that this data rank works on in one pass.
struct AnswerBatch {
  std::vector<std::int64_t> records;  ///< record numbers
  std::uint64_t epoch = 0;
  std::int64_t global_count = 0;     ///< records of the batch over all data ranks and micro-batches
  std::int64_t global_answers = 0;   ///< their answers
  std::int64_t global_imitated = 0;  ///< their tokens that a likelihood term imitates
  AnswerRows rows;
  /// With the first part of a step: prompts of all its parts, each with an answer to another prompt.
  std::vector<AnswerRows> mismatched;
};

/// What an objective learns from in one pass.
using Batch = std::variant<ImageBatch, TokenBatch, AnswerBatch>;

}  // namespace bireme
