#include "objectives/answer_scores.h"

#include <algorithm>

#include "core/data/answer_packing.h"
#include "objectives/preference_objective.h"

namespace bireme {

std::vector<std::vector<AnswerScore>> score_answers(const Backend& backend, const LanguageModel& model,
                                                    std::span<const AnswerRecord> records,
                                                    const ScoreAnswersOptions& options) {
  std::vector<std::vector<AnswerScore>> scores;
  std::size_t first = 0;
  std::int64_t tokens = 0;
  const auto flush = [&](std::size_t end) {
    if (first == end) return;
    const AnswerRows rows = pack_answers(records.subspan(first, end - first), {}, backend.memory().host());
    auto answer = score_answers(backend, model, rows, options.type);
    auto next = answer.begin();
    for (; first < end; ++first) {
      scores.emplace_back();
      for (std::size_t a = 0; a < records[first].answers.size(); ++a, ++next)
        scores.back().push_back(
            {.log_probability = next->log_probability, .tokens = static_cast<std::int64_t>(next->tokens)});
    }
    tokens = 0;
  };
  for (std::size_t i = 0; i < records.size(); ++i) {
    std::int64_t length = std::ssize(records[i].prompt);
    for (const std::vector<std::int32_t>& answer : records[i].answers) length += std::ssize(answer);
    if (tokens + length > options.budget) flush(i);
    tokens += length;
  }
  flush(records.size());
  return scores;
}

std::vector<std::vector<AnswerScore>> score_records(const Backend& backend, Communicator& ranks,
                                                    const LanguageModel& model, std::int64_t count,
                                                    int answers, const ReadAnswers& read,
                                                    const ScoreAnswersOptions& options,
                                                    const ScoreProgress& progress) {
  constexpr std::int64_t block = 32;  // records read at a time
  const std::int64_t share = (count + ranks.size() - 1) / ranks.size();
  const std::int64_t first = std::min(count, ranks.rank() * share), last = std::min(count, first + share);
  // Each number comes from one rank, zeros from the others: the sum is exact.
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor all(*memory, {std::max<std::int64_t>(count, 1), answers, 2}, DType::f64);
  std::fill_n(all.data<double>(), all.elements(), 0.0);
  for (std::int64_t begin = first; begin < last; begin += block) {
    std::vector<AnswerRecord> records;
    for (std::int64_t i = begin; i < std::min(last, begin + block); ++i) records.push_back(read(i));
    double* into = all.data<double>() + begin * answers * 2;
    for (const std::vector<AnswerScore>& scores : score_answers(backend, model, records, options))
      for (const AnswerScore& score : scores) {
        *into++ = score.log_probability;
        *into++ = static_cast<double>(score.tokens);
      }
    ranks.beat();
    if (progress) progress(std::min(count, (begin + block - first) * ranks.size()), count);
  }
  ranks.all_reduce(all, Reduce::sum).wait();
  std::vector<std::vector<AnswerScore>> scores(static_cast<std::size_t>(count));
  const double* from = all.data<double>();
  for (std::vector<AnswerScore>& record : scores)
    for (int a = 0; a < answers; ++a, from += 2)
      record.push_back({.log_probability = from[0], .tokens = static_cast<std::int64_t>(from[1])});
  return scores;
}

}  // namespace bireme
