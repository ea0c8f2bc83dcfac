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

using ReadAnswers = std::function<AnswerRecord(std::int64_t index)>;
using ScoreProgress = std::function<void(std::int64_t done, std::int64_t total)>;

/// Scores `count` records of `answers` answers each, spread over `ranks`; every rank gets all scores, one
/// entry for each record. Collective over `ranks`.
std::vector<std::vector<AnswerScore>> score_records(const Backend& backend, Communicator& ranks,
                                                    const LanguageModel& model, std::int64_t count,
                                                    int answers, const ReadAnswers& read,
                                                    const ScoreAnswersOptions& options = {},
                                                    const ScoreProgress& progress = {});

}  // namespace bireme
