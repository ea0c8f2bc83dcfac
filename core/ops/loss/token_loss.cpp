#include "core/ops/loss/token_loss.h"

#include <algorithm>

#include "core/ops/lane_type.h"
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

  /// Rows of the result, and their losses, not yet divided.
  void run(const TokenLossResult& result, const Tensor& losses, const UnitGradients& gradients) const {
    const std::int64_t rows = hidden_.rows(), vocabulary = head_.weight.shape().front();
    const std::int64_t step = slice_rows(rows, vocabulary);
    Memory& memory = backend_.memory();
    const Tensor logits(memory, {step, vocabulary}, lane_type(hidden_.dtype()));
    // Products take both factors in one type.
    const bool narrows = hidden_.dtype() == DType::bf16 && (gradients.dhidden || gradients.dweight);
    const Tensor dlogits = narrows ? Tensor(memory, {step, vocabulary}, DType::bf16) : logits;
    for (std::int64_t begin = 0; begin < rows; begin += step) {
      const std::int64_t end = std::min(rows, begin + step);
      const Slice slice{.begin = begin,
                        .end = end,
                        .logits = logits.slice(0, end - begin),
                        .dlogits = dlogits.slice(0, end - begin)};
      run_slice(slice, result, losses, gradients);
    }
  }

 private:
  struct Slice {
    std::int64_t begin, end;
    Tensor logits, dlogits;
  };

  void run_slice(const Slice& s, const TokenLossResult& result, const Tensor& losses,
                 const UnitGradients& gradients) const {
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
    rows.combine(backend_, head_.reduce);
    backend_.loss().token_finish({.targets = targets,
                                  .maxima = rows.maxima,
                                  .sums = rows.sums.slice(0, rows.rows()),
                                  .target_logits = rows.target_logits,
                                  .z_loss = terms_.z_loss,
                                  .log_sums = rows.log_sums,
                                  .log_probability = result.log_probability.slice(s.begin, s.end),
                                  .is_top = result.is_top.slice(s.begin, s.end),
                                  .losses = losses.slice(s.begin, s.end)});
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
  const DType type = lane_type(hidden.dtype());
  UnitGradients gradients;
  if (tape.recording() && hidden.wants_gradient())
    gradients.dhidden = tape.empty(hidden.shape(), hidden.dtype());
  if (tape.recording() && head.weight.trainable()) gradients.dweight = tape.empty(head.weight.shape(), type);

  TokenLossResult result{.loss = {},
                         .top = tape.empty({}, DType::f64),
                         .log_probability = tape.empty({rows}, DType::f32),
                         .is_top = tape.empty({rows}, DType::u8)};
  const Tensor loss = tape.empty({}, type), losses = tape.empty({rows}, DType::f64);
  const Tensor own_targets = on_device(backend.memory(), targets.reshape({rows}));
  SlicedHead(backend, hidden.value(), own_targets, head, terms).run(result, losses, gradients);
  backend.loss().token_totals(
      {.losses = losses, .is_top = result.is_top, .count = terms.count, .loss = loss, .top = result.top});
  Parameter& weight = head.weight;
  result.loss = tape.record(
      "token_loss", {hidden, weight}, loss,
      [&backend, hidden, &weight, gradients](const Tensor& dloss, Gradients& into) {
        if (gradients.dhidden) {
          backend.pointwise().scale(
              {.x = gradients.dhidden, .factor = 1, .to = {gradients.dhidden, false}, .by = dloss});
          into.give(hidden, gradients.dhidden);
        }
        if (const Target dweight = into[weight])
          backend.pointwise().scale({.x = gradients.dweight, .factor = 1, .to = dweight, .by = dloss});
      });
  return result;
}

Tensor token_logits(const Backend& backend, const Tensor& hidden, const TokenHead& head) {
  const Tensor logits(backend.memory(), {hidden.rows(), head.weight.shape().front()},
                      lane_type(hidden.dtype()));
  backend.linear().linear(
      LinearForward{.x = hidden, .weight = head.weight.as(hidden.dtype()), .bias = {}, .y = logits});
  if (head.soft_cap != 0) backend.loss().soft_cap({.logits = logits, .cap = head.soft_cap});
  return logits;
}

}  // namespace bireme
