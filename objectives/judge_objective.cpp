#include "objectives/judge_objective.h"

#include <algorithm>
#include <limits>
#include <span>

#include "core/ops/lane_type.h"
#include "core/ops/linear/linear.h"
#include "objectives/answer_pass.h"
#include "objectives/evaluate/win_rate.h"
#include "objectives/host_numbers.h"

namespace bireme {

TokenBatch judge_batch(std::span<const AnswerRecord> pairs, Memory& memory) {
  TokenBatch batch;
  for (const AnswerRecord& pair : pairs) batch.records.push_back(pair.number);
  for_each_pass(pairs, std::numeric_limits<std::int64_t>::max(), memory, [&](const AnswerPass& pass) {
    batch.tokens = pass.tokens;
    batch.starts = pass.starts;
    batch.targets = Tensor(memory, pass.tokens.shape(), DType::i32);
    std::fill_n(batch.targets.data<std::int32_t>(), batch.targets.elements(), -1);
    for (const PlacedDocument& document : pass.documents)
      batch.targets.data<std::int32_t>()[document.last_row()] = static_cast<std::int32_t>(document.answer);
  });
  return batch;
}

JudgeObjective::JudgeObjective(const Options& options, const Mesh& mesh, LanguageModel& model,
                               Parameter& head)
    : options_(options), mesh_(mesh), model_(model), head_(head) {}

void JudgeObjective::begin(std::int64_t /*step*/) { loss_ = accuracy_ = 0; }

namespace {

/// The rows at which chosen and rejected answers are scored, pair by pair.
struct ScoredRows {
  std::vector<std::int64_t> chosen, rejected;
};
ScoredRows scored_rows(const Tensor& targets) {
  ScoredRows rows;
  for (std::int64_t r = 0; r < targets.elements(); ++r) {
    const std::int32_t side = targets.data<std::int32_t>()[r];
    if (side >= 0) (side == 0 ? rows.chosen : rows.rejected).push_back(r);
  }
  return rows;
}

/// The gradient of the scores: zeros but for the scored rows.
Tensor gradient_of(const Tensor& scores, const ScoredRows& rows, const BradleyTerry& loss, double factor) {
  const Tensor gradient(scores.memory().host(), scores.shape(), DType::f64);
  fill(gradient, 0);
  double* numbers = gradient.data<double>();
  for (std::size_t i = 0; i < rows.chosen.size(); ++i) {
    numbers[rows.chosen[i]] = factor * loss.dchosen[i];
    numbers[rows.rejected[i]] = factor * loss.drejected[i];
  }
  return convert(scores.memory(), gradient, scores.dtype());
}

}  // namespace

Var JudgeObjective::compute(Tape& tape, const Batch& any_batch) {
  const auto& batch = std::get<TokenBatch>(any_batch);
  const Var hidden = model_.hidden(tape, {batch.tokens, batch.starts},
                                   {.type = options_.type, .recompute = options_.recompute});
  const Var scores = linear(tape, hidden, head_, nullptr);  // of every row: one number each costs nothing
  const ScoredRows rows = scored_rows(batch.targets);
  const Tensor numbers = numbers_of(scores.value());
  const std::span<const double> all = numbers.values<double>();
  std::vector<double> chosen, rejected;
  for (std::size_t i = 0; i < rows.chosen.size(); ++i) {
    chosen.push_back(all[static_cast<std::size_t>(rows.chosen[i])]);
    rejected.push_back(all[static_cast<std::size_t>(rows.rejected[i])]);
  }
  BradleyTerry result = bradley_terry(chosen, rejected, options_.centre, batch.global_count);
  loss_ += result.loss;
  accuracy_ += result.accuracy;
  const Tensor value = tape.empty({1}, lane_type(scores.dtype()));
  fill(value, result.loss);
  return tape.record("bradley_terry", {scores}, value,
                     [scores, rows, result = std::move(result)](const Tensor& dy, Gradients& into) {
                       into.give(scores,
                                 gradient_of(scores.value(), rows, result, numbers_of(dy).data<double>()[0]));
                     });
}

double JudgeObjective::reduce() {
  loss_ = mesh_.data().all_reduce_value(loss_, Reduce::sum);
  accuracy_ = mesh_.data().all_reduce_value(accuracy_, Reduce::sum);
  return loss_;
}

std::vector<std::pair<std::string, double>> JudgeObjective::terms() const {
  return {{"accuracy", accuracy_}};
}

double JudgeObjective::flops(const Batch& any_batch) const {
  const auto& batch = std::get<TokenBatch>(any_batch);
  const std::int64_t rows = batch.tokens.elements();
  double sum = 0;
  std::int64_t first = 0;
  for (std::int64_t r = 1; r <= rows; ++r)
    if (r == rows || batch.starts.data<std::uint8_t>()[r] != 0) {
      sum += model_.flops(1, r - first);
      first = r;
    }
  return 3 * sum;
}

}  // namespace bireme
