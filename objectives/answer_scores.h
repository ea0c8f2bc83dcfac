#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/data/answer_dataset.h"
#include "distributed/communicator.h"
#include "models/language_model.h"

namespace bireme {

/// What a model says of an answer to its prompt, at temperature 1.
struct AnswerScore {
  double log_probability = 0;  ///< s(y): sum over scored tokens of log p, natural logarithm
  std::int64_t tokens = 0;     ///< n(y): scored tokens, end token included

  double mean() const { return log_probability / static_cast<double>(tokens); }  ///< a(y)
};

struct ScoreAnswersOptions {
  DType type = DType::f32;        ///< compute type
  std::int64_t budget = 1 << 12;  ///< tokens of a forward pass; a longer record has one to itself
};

/// Scores every answer of the records: one entry for each record, one score for each of its answers. A prompt
/// is read once, whatever the number of its answers; several records share a forward pass, never padded. Sums
/// are in double, so that they neither lose digits over thousands of tokens nor depend on what shared the
/// pass beyond the rounding of the model. Collective over the tensor ranks of the model.
std::vector<std::vector<AnswerScore>> score_answers(const Backend& backend, const LanguageModel& model,
                                                    std::span<const AnswerRecord> records,
                                                    const ScoreAnswersOptions& options = {});

/// Scores the answers of these records of a dataset, spread over `ranks`; every rank gets all scores.
/// @param numbers  of the records; the result has one entry for each
/// Collective over `ranks`.
std::vector<std::vector<AnswerScore>> score_records(
    const Backend& backend, Communicator& ranks, const LanguageModel& model, const AnswerDataset& dataset,
    std::span<const std::int64_t> numbers, const ScoreAnswersOptions& options = {},
    const std::function<void(std::int64_t done, std::int64_t total)>& progress = {});

}  // namespace bireme
