#include "core/ops/loss/token_loss.h"

#include <algorithm>

#include "core/ops/linear/linear_kernels.h"
#include "core/ops/loss/token_slices.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

namespace {

/// Gradients for an incoming gradient of 1, complete when the last slice has been through.
struct UnitGradients {
  Tensor dhidden, dweight;  // undefined: not wanted
};

class SlicedHead {
 public:
  SlicedHead(const Backend& backend, const Tensor& hidden, const Tensor& targets, const TokenHead& head,
             const TokenLossTerms& terms)
      : backend_(backend), hidden_(hidden), targets_(targets), head_(head), terms_(terms) {}

  /// The sum of the losses, not yet divided.
  double run(const TokenLossResult& result, const UnitGradients& gradients) const {
    const std::int64_t rows = hidden_.rows(), vocabulary = head_.weight.shape().front();
    const std::int64_t step = slice_rows(rows, vocabulary);
    Memory& memory = backend_.memory();
    const Tensor logits(memory, {step, vocabulary}, logit_type(hidden_.dtype()));
    // Products take both factors in one type.
    const bool narrows = hidden_.dtype() == DType::bf16 && (gradients.dhidden || gradients.dweight);
    const Tensor dlogits = narrows ? Tensor(memory, {step, vocabulary}, DType::bf16) : logits;
    double loss = 0;
    for (std::int64_t begin = 0; begin < rows; begin += step) {
      const std::int64_t end = std::min(rows, begin + step);
      const Slice slice{.begin = begin,
                        .end = end,
                        .logits = logits.slice(0, end - begin),
                        .dlogits = dlogits.slice(0, end - begin)};
      loss += run_slice(slice, result, gradients);
    }
    return loss;
  }

 private:
  struct Slice {
    std::int64_t begin, end;
    Tensor logits, dlogits;
  };

  double run_slice(const Slice& s, const TokenLossResult& result, const UnitGradients& gradients) const {
    const Tensor x = hidden_.slice(s.begin, s.end), targets = targets_.slice(s.begin, s.end);
    const Tensor& weight = head_.weight.as(hidden_.dtype());
    backend_.linear().linear(LinearForward{.x = x, .weight = weight, .bias = {}, .y = s.logits});
    const RowStatistics rows(backend_.memory(), s.end - s.begin, terms_.l2_wrap != 0);
    backend_.loss().token_statistics({.logits = s.logits,
                                      .targets = targets,
                                      .first = head_.first,
                                      .soft_cap = head_.soft_cap,
                                      .maxima = rows.maxima,
                                      .argmax = rows.argmax,
                                      .sums = rows.sums.slice(0, rows.rows()),
                                      .target_logits = rows.target_logits});
    rows.combine(head_.reduce);
    if (gradients.dhidden || gradients.dweight) {
      backend_.loss().token_gradient({.logits = s.logits,
                                      .targets = targets,
                                      .first = head_.first,
                                      .soft_cap = head_.soft_cap,
                                      .maxima = rows.maxima,
                                      .argmax = rows.argmax,
                                      .log_sums = rows.log_sums,
                                      .count = terms_.count,
                                      .z_loss = terms_.z_loss,
                                      .l2_wrap = terms_.l2_wrap,
                                      .dlogits = s.dlogits});
      const Target dx{gradients.dhidden ? gradients.dhidden.slice(s.begin, s.end) : Tensor(), false};
      backend_.linear().linear(LinearBackward{.dy = s.dlogits,
                                              .x = x,
                                              .weight = weight,
                                              .dx = dx,
                                              .dweight = {gradients.dweight, s.begin > 0},
                                              .dbias = {}});
    }
    return sum_losses(s, targets, rows, result);
  }

  double sum_losses(const Slice& s, const Tensor& targets, const RowStatistics& rows,
                    const TokenLossResult& result) const {
    double loss = 0;
    for (std::int64_t r = 0; r < rows.rows(); ++r) {
      float& log_p = result.log_probability.data<float>()[s.begin + r];
      std::uint8_t& is_top = result.is_top.data<std::uint8_t>()[s.begin + r];
      log_p = 0;
      is_top = 0;
      if (targets.data<std::int32_t>()[r] < 0) continue;
      const double log_sum = rows.log_sums.data<double>()[r];
      const double target_logit = rows.target_logits.data<double>()[r];
      const double negative = log_sum - target_logit;
      log_p = static_cast<float>(-negative);
      is_top = target_logit == rows.maxima.data<double>()[r] ? 1 : 0;
      loss += negative + terms_.z_loss * log_sum * log_sum;
    }
    return loss;
  }

  const Backend& backend_;
  const Tensor& hidden_;
  const Tensor& targets_;
  const TokenHead& head_;
  const TokenLossTerms& terms_;
};

}  // namespace

TokenLossResult token_loss(Tape& tape, const Var& hidden, const Tensor& targets, const TokenHead& head,
                           const TokenLossTerms& terms) {
  const Backend& backend = tape.backend();
  const std::int64_t rows = hidden.value().rows();
  require_shape("token_loss: weight", head.weight.value(),
                {head.weight.shape().front(), hidden.value().channels()});
  require_shape("token_loss: targets", targets.reshape({targets.elements()}), {rows});
  const DType type = logit_type(hidden.dtype());
  UnitGradients gradients;
  if (tape.recording() && hidden.wants_gradient())
    gradients.dhidden = tape.empty(hidden.shape(), hidden.dtype());
  if (tape.recording() && head.weight.trainable()) gradients.dweight = tape.empty(head.weight.shape(), type);

  TokenLossResult result{
      .loss = {}, .log_probability = tape.empty({rows}, DType::f32), .is_top = tape.empty({rows}, DType::u8)};
  const Tensor loss = tape.empty({}, type), flat_targets = targets.reshape({rows});
  const double sum = SlicedHead(backend, hidden.value(), flat_targets, head, terms).run(result, gradients);
  fill(loss, sum / terms.count);
  Parameter& weight = head.weight;
  result.loss =
      tape.record("token_loss", {hidden, weight}, loss,
                  [&backend, hidden, &weight, gradients](const Tensor& dloss, Gradients& into) {
                    const double factor = convert(backend.memory(), dloss, DType::f64).data<double>()[0];
                    if (gradients.dhidden) {
                      if (factor != 1)
                        backend.pointwise().scale(
                            {.x = gradients.dhidden, .factor = factor, .to = {gradients.dhidden, false}});
                      into.give(hidden, gradients.dhidden);
                    }
                    if (const Target dweight = into[weight])
                      backend.pointwise().scale({.x = gradients.dweight, .factor = factor, .to = dweight});
                  });
  return result;
}

Tensor token_logits(const Backend& backend, const Tensor& hidden, const TokenHead& head) {
  const Tensor logits(backend.memory(), {hidden.rows(), head.weight.shape().front()},
                      logit_type(hidden.dtype()));
  backend.linear().linear(
      LinearForward{.x = hidden, .weight = head.weight.as(hidden.dtype()), .bias = {}, .y = logits});
  if (head.soft_cap != 0) backend.loss().soft_cap({.logits = logits, .cap = head.soft_cap});
  return logits;
}

}  // namespace bireme
