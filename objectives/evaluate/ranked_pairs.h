#pragma once

#include <cstdint>
#include <vector>

#include "core/data/answer_dataset.h"
#include "objectives/evaluate/ranking.h"

namespace bireme {

/// Records whose answers can be compared by their likelihoods, and how many cannot.
struct ComparableRecords {
  std::vector<std::int64_t> numbers;  ///< ascending
  std::int64_t cut = 0;               ///< an answer lost its end to truncation
  std::int64_t too_long = 0;          ///< for the context of the model
};
/// @param context  of the model; 0: any length
/// @param sample   records to look at, drawn without replacement; 0: all
/// @throws Error (data) when none can be compared
ComparableRecords comparable_records(const AnswerDataset& data, std::int64_t context,
                                     std::int64_t sample = 0);

/// Scores of records, one of each answer.
using RecordScores = std::vector<std::vector<AnswerScore>>;

/// @param policy, reference  of `records.numbers`, in that order; reference may be null
std::vector<RankedPair> ranked_pairs(const AnswerDataset& data, const ComparableRecords& records,
                                     const RecordScores& policy, const RecordScores* reference);

}  // namespace bireme
