#include "objectives/answer_scores.h"

#include <algorithm>

#include "objectives/answer_pass.h"

namespace bireme {

std::vector<std::vector<AnswerScore>> score_answers(const Backend& backend, const LanguageModel& model,
                                                    std::span<const AnswerRecord> records,
                                                    const ScoreAnswersOptions& options) {
  std::vector<std::vector<AnswerScore>> scores;
  for (const AnswerRecord& record : records) scores.emplace_back(record.answers.size());
  for_each_pass(records, options.budget, backend.memory(), [&](const AnswerPass& pass) {
    // The row before a token predicts it.
    const Tensor targets(backend.memory(), pass.tokens.shape(), DType::i32);
    std::int32_t* target = targets.data<std::int32_t>();
    const std::int32_t* token = pass.tokens.data<std::int32_t>();
    std::fill_n(target, targets.elements(), -1);
    for (const PlacedDocument& document : pass.documents)
      std::copy(token + document.first_row + document.first_scored(),
                token + document.first_row + document.length,
                target + document.first_row + document.first_scored() - 1);
    Tape tape(backend, Tape::Mode::inference);
    const Var hidden = model.hidden(tape, {pass.tokens, pass.starts}, {.type = options.type});
    const TokenLoss loss = model.head().loss(tape, hidden, targets, {});
    const float* log_probability = loss.log_probability.data<float>();
    for (const PlacedDocument& document : pass.documents) {
      AnswerScore& score = scores[document.record][document.answer];
      score.tokens = document.length - document.first_scored();
      for (std::int64_t t = document.first_scored(); t < document.length;
           ++t)  // rounding may give more than 0
        score.log_probability += std::min(double{log_probability[document.first_row + t - 1]}, 0.0);
    }
  });
  return scores;
}

std::vector<std::vector<AnswerScore>> score_records(
    const Backend& backend, Communicator& ranks, const LanguageModel& model, const AnswerDataset& dataset,
    std::span<const std::int64_t> numbers, const ScoreAnswersOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress) {
  constexpr std::int64_t block = 32;  // records read at a time
  const std::int64_t count = std::ssize(numbers), share = (count + ranks.size() - 1) / ranks.size();
  const std::int64_t first = std::min(count, ranks.rank() * share), last = std::min(count, first + share);
  const auto answers = static_cast<std::int64_t>(dataset.manifest().answers());
  // Each number comes from one rank, zeros from the others: the sum is exact.
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor all(*memory, {std::max<std::int64_t>(count, 1), answers, 2}, DType::f64);
  std::fill_n(all.data<double>(), all.elements(), 0.0);
  for (std::int64_t begin = first; begin < last; begin += block) {
    std::vector<AnswerRecord> records;
    for (std::int64_t i = begin; i < std::min(last, begin + block); ++i)
      records.push_back(dataset.read(numbers[static_cast<std::size_t>(i)]));
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
  std::vector<std::vector<AnswerScore>> scores(numbers.size());
  const double* from = all.data<double>();
  for (std::vector<AnswerScore>& record : scores)
    for (std::int64_t a = 0; a < answers; ++a, from += 2)
      record.push_back({.log_probability = from[0], .tokens = static_cast<std::int64_t>(from[1])});
  return scores;
}

}  // namespace bireme
