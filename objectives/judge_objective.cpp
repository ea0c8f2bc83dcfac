#include "objectives/judge_objective.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/ops/linear/linear.h"
#include "objectives/answer_pass.h"
#include "objectives/evaluate/win_rate.h"

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

/// Numbers of a [R, 1] tensor on the host, whatever type and device they have.
std::vector<double> on_host(const Tensor& scores) {
  const std::shared_ptr<Memory> host = make_host_memory();
  const Tensor values = clone(*host, scores);
  std::vector<double> list;
  const auto take = [&]<class T>(std::span<const T> from) {
    for (const T value : from) list.push_back(static_cast<double>(to_float(value)));
  };
  if (values.dtype() == DType::f64)
    take(std::span<const double>(values.values<double>()));
  else if (values.dtype() == DType::bf16)
    take(std::span<const bf16>(values.values<bf16>()));
  else
    take(std::span<const float>(values.values<float>()));
  return list;
}

/// The same way back: zeros but for the scored rows.
Tensor gradient_of(const Tensor& scores, const ScoredRows& rows, const BradleyTerry& loss, double factor,
                   Memory& memory) {
  const std::shared_ptr<Memory> host = make_host_memory();
  const Tensor gradient(*host, scores.shape(), scores.dtype());
  std::memset(gradient.raw(), 0, gradient.bytes());
  const auto put = [&](std::int64_t row, double value) {
    if (scores.dtype() == DType::f64)
      gradient.data<double>()[row] = value;
    else if (scores.dtype() == DType::bf16)
      gradient.data<bf16>()[row] = from_float<bf16>(static_cast<float>(value));
    else
      gradient.data<float>()[row] = static_cast<float>(value);
  };
  for (std::size_t i = 0; i < rows.chosen.size(); ++i) {
    put(rows.chosen[i], factor * loss.dchosen[i]);
    put(rows.rejected[i], factor * loss.drejected[i]);
  }
  return clone(memory, gradient);
}

}  // namespace

Var JudgeObjective::compute(Tape& tape, const Batch& any_batch) {
  const auto& batch = std::get<TokenBatch>(any_batch);
  const Var hidden = model_.hidden(tape, {batch.tokens, batch.starts},
                                   {.type = options_.type, .recompute = options_.recompute});
  const Var scores = linear(tape, hidden, head_, nullptr);  // of every row: one number each costs nothing
  const ScoredRows rows = scored_rows(batch.targets);
  const std::vector<double> all = on_host(scores.value());
  std::vector<double> chosen, rejected;
  for (std::size_t i = 0; i < rows.chosen.size(); ++i) {
    chosen.push_back(all[static_cast<std::size_t>(rows.chosen[i])]);
    rejected.push_back(all[static_cast<std::size_t>(rows.rejected[i])]);
  }
  BradleyTerry result = bradley_terry(chosen, rejected, options_.centre, batch.global_count);
  loss_ += result.loss;
  accuracy_ += result.accuracy;
  const std::shared_ptr<Memory> host = make_host_memory();
  const DType type = scores.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor value(*host, {1}, type);
  if (type == DType::f64)
    value.data<double>()[0] = result.loss;
  else
    value.data<float>()[0] = static_cast<float>(result.loss);
  Memory& memory = tape.backend().memory();
  return tape.record("bradley_terry", {scores}, clone(memory, value),
                     [scores, rows, result = std::move(result), &memory](const Tensor& dy, Gradients& into) {
                       into.give(scores,
                                 gradient_of(scores.value(), rows, result, on_host(dy).front(), memory));
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
