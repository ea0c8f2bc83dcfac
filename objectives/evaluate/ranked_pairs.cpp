#include "objectives/evaluate/ranked_pairs.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/data/sampler.h"

namespace bireme {

ComparableRecords comparable_records(const AnswerDataset& data, std::int64_t context, std::int64_t sample) {
  ComparableRecords records;
  const std::int64_t count = sample > 0 ? std::min(sample, data.size()) : data.size();
  const Permutation order(data.size(), 0, 0);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t number = count < data.size() ? order(i) : i;
    const AnswerLengths lengths = data.lengths(number);
    const std::int64_t longest = *std::ranges::max_element(lengths.answers);
    if (data.is_cut(number))
      ++records.cut;
    else if (context > 0 && lengths.prompt + longest > context)
      ++records.too_long;
    else
      records.numbers.push_back(number);
  }
  std::ranges::sort(records.numbers);
  if (records.numbers.empty())
    throw Error(ErrorKind::data,
                fmt::format("no pair can be compared: {} have an answer cut by truncation, {} are longer "
                            "than the model's context",
                            records.cut, records.too_long),
                data.folder().string(), "prepare it with another --max-length or --truncate");
  return records;
}

std::vector<RankedPair> ranked_pairs(const AnswerDataset& data, const ComparableRecords& records,
                                     const RecordScores& policy, const RecordScores* reference) {
  std::vector<RankedPair> pairs;
  pairs.reserve(policy.size());
  for (std::size_t i = 0; i < policy.size(); ++i) {
    RankedPair& pair = pairs.emplace_back(RankedPair{.record = records.numbers[i],
                                                     .chosen = policy[i][0],
                                                     .rejected = policy[i][1],
                                                     .preference = data.preference(records.numbers[i])});
    if (reference != nullptr)
      pair.reference = std::array{(*reference)[i][0].log_probability, (*reference)[i][1].log_probability};
  }
  return pairs;
}

}  // namespace bireme
