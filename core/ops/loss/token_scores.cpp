#include "core/ops/loss/token_scores.h"

#include <algorithm>

#include "core/ops/lane_type.h"
#include "core/ops/linear/linear_kernels.h"
#include "core/ops/loss/token_slices.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

namespace {

/// The way forward and back over the slices of a head's rows.
class SlicedScores {
 public:
  SlicedScores(const Backend& backend, const Tensor& hidden, const Tensor& targets, const TokenHead& head)
      : backend_(backend),
        hidden_(hidden),
        targets_(on_device(backend.memory(), targets)),
        head_(head),
        vocabulary_(head.weight.shape().front()),
        step_(slice_rows(hidden.rows(), vocabulary_)) {}

  std::int64_t rows() const { return hidden_.rows(); }
  /// For keep(): whether all logits are to stay in memory.
  bool fits() const {
    return rows() * vocabulary_ * static_cast<std::int64_t>(size_of(type())) <= kKeptLogitBytes;
  }
  void keep() {
    kept_ = Tensor(backend_.memory(), {rows(), vocabulary_}, type());
    log_sums_ = Tensor(backend_.memory(), {rows()}, DType::f64);
  }
  void keep_sums() { log_sums_ = Tensor(backend_.memory(), {rows()}, DType::f64); }

  void forward(const Tensor& scores) {
    const Tensor scratch = kept_ ? Tensor() : scratch_logits(type());
    for_each_slice([&](std::int64_t begin, std::int64_t end) {
      const Tensor logits = kept_ ? kept_.slice(begin, end) : scratch.slice(0, end - begin);
      product(begin, end, logits);
      const RowStatistics statistics(backend_.memory(), end - begin, false);
      backend_.loss().token_statistics({.logits = logits,
                                        .targets = targets_.slice(begin, end),
                                        .first = head_.first,
                                        .soft_cap = head_.soft_cap,
                                        .maxima = statistics.maxima,
                                        .argmax = statistics.argmax,
                                        .sums = statistics.sums.slice(0, end - begin),
                                        .target_logits = statistics.target_logits});
      statistics.combine(backend_, head_.reduce);
      backend_.loss().token_finish({.targets = targets_.slice(begin, end),
                                    .maxima = statistics.maxima,
                                    .sums = statistics.sums.slice(0, end - begin),
                                    .target_logits = statistics.target_logits,
                                    .z_loss = 0,
                                    .log_sums = log_sums_ ? log_sums_.slice(begin, end) : statistics.log_sums,
                                    .log_probability = scores.slice(begin, end)});
    });
  }

  void backward(const Tensor& dscores, const Target& dhidden, const Target& dweight) const {
    if (!dhidden && !dweight) return;
    const Tensor weights(backend_.memory(), {rows()}, DType::f64);  // of -log p
    backend_.pointwise().scale({.x = dscores, .factor = -1, .to = {weights, false}});
    const Tensor scratch = kept_ ? Tensor() : scratch_logits(type());
    const bool narrows = hidden_.dtype() == DType::bf16;  // products take both factors in one type
    const Tensor narrow = narrows ? scratch_logits(DType::bf16) : Tensor();
    for_each_slice([&](std::int64_t begin, std::int64_t end) {
      const Tensor logits = kept_ ? kept_.slice(begin, end) : scratch.slice(0, end - begin);
      if (!kept_) {
        product(begin, end, logits);
        if (head_.soft_cap != 0) backend_.loss().soft_cap({.logits = logits, .cap = head_.soft_cap});
      }
      const Tensor dlogits = narrows ? narrow.slice(0, end - begin) : logits, none;
      const Tensor log_sums = log_sums_.slice(begin, end), targets = targets_.slice(begin, end);
      backend_.loss().token_gradient({.logits = logits,
                                      .targets = targets,
                                      .first = head_.first,
                                      .soft_cap = head_.soft_cap,
                                      .maxima = log_sums,
                                      .argmax = none,
                                      .log_sums = log_sums,
                                      .count = 1,
                                      .z_loss = 0,
                                      .l2_wrap = 0,
                                      .dlogits = dlogits,
                                      .weights = weights.slice(begin, end)});
      const Tensor x = hidden_.slice(begin, end);
      const Target dx{dhidden ? dhidden.tensor.slice(begin, end) : Tensor(), dhidden.accumulate};
      backend_.linear().linear(LinearBackward{.dy = dlogits,
                                              .x = x,
                                              .weight = head_.weight.as(hidden_.dtype()),
                                              .dx = dx,
                                              .dweight = {dweight.tensor, dweight.accumulate || begin > 0},
                                              .dbias = {}});
    });
  }

 private:
  DType type() const { return lane_type(hidden_.dtype()); }
  Tensor scratch_logits(DType type) const { return {backend_.memory(), {step_, vocabulary_}, type}; }
  void product(std::int64_t begin, std::int64_t end, const Tensor& logits) const {
    const Tensor x = hidden_.slice(begin, end);
    backend_.linear().linear(
        LinearForward{.x = x, .weight = head_.weight.as(hidden_.dtype()), .bias = {}, .y = logits});
  }
  template <class Body>
  void for_each_slice(const Body& body) const {
    for (std::int64_t begin = 0; begin < rows(); begin += step_) body(begin, std::min(rows(), begin + step_));
  }

  const Backend& backend_;
  Tensor hidden_, targets_;
  TokenHead head_;
  std::int64_t vocabulary_, step_;
  Tensor kept_, log_sums_;
};

}  // namespace

Var token_scores(Tape& tape, const Var& hidden, const Tensor& targets, const TokenHead& head) {
  require_shape("token_scores: weight", head.weight.value(),
                {head.weight.shape().front(), hidden.value().channels()});
  require_shape("token_scores: targets", targets, {hidden.value().rows()});
  SlicedScores slices(tape.backend(), hidden.value(), targets, head);
  const Tensor scores = tape.empty({slices.rows()}, DType::f64);
  Parameter& weight = head.weight;
  const bool goes_back = tape.recording() && (hidden.wants_gradient() || weight.trainable());
  if (goes_back) slices.fits() ? slices.keep() : slices.keep_sums();
  slices.forward(scores);
  return tape.record("token_scores", {hidden, weight}, scores,
                     [slices, hidden, &weight](const Tensor& dscores, Gradients& into) {
                       slices.backward(dscores, into[hidden], into[weight]);
                     });
}

}  // namespace bireme
