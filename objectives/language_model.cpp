#include "objectives/language_model.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace bireme {

LanguageModelObjective::LanguageModelObjective(const Options& options, const Mesh& mesh, LanguageModel& model)
    : options_(options), mesh_(mesh), model_(model) {}

void LanguageModelObjective::begin(std::int64_t /*step*/) {
  targets_ = 0;
  parts_.clear();
}

Var LanguageModelObjective::compute(Tape& tape, const Batch& any_batch) {
  const auto& batch = std::get<TokenBatch>(any_batch);
  const Var hidden = model_.hidden(tape, {batch.tokens, batch.starts},
                                   {.type = options_.type, .recompute = options_.recompute});
  const TokenLoss result = model_.head().loss(tape, hidden, batch.targets,
                                              {.count = static_cast<double>(options_.step_tokens),
                                               .z_loss = options_.z_loss,
                                               .l2_wrap = options_.l2_wrap});
  targets_ += result.count;
  parts_.add(result.loss.value(), result.top);
  return result.loss;
}

double LanguageModelObjective::reduce() {
  std::tie(loss_, top_) = parts_.sums();
  Communicator& data = mesh_.data();
  targets_ = data.all_reduce_value(targets_, Reduce::sum);
  top_ = data.all_reduce_value(top_, Reduce::sum);
  scale_ = static_cast<double>(options_.step_tokens) / std::max(1.0, targets_);
  loss_ = scale_ * data.all_reduce_value(loss_, Reduce::sum);
  return loss_;
}

std::vector<std::pair<std::string, double>> LanguageModelObjective::terms() const {
  return {{"perplexity", std::exp(loss_)},
          {"bits_per_token", loss_ / std::log(2.0)},
          {"accuracy", top_ / std::max(1.0, targets_)}};
}

double LanguageModelObjective::flops(const Batch& any_batch) const {
  const Shape& shape = std::get<TokenBatch>(any_batch).tokens.shape();
  return 3 * model_.flops(shape[0], shape[1]);
}

}  // namespace bireme
