#include "core/ops/token_shift/token_shift.h"

#include <cassert>

#include "core/ops/token_shift/token_shift_kernels.h"

namespace bireme {

std::vector<Var> token_shift(Tape& tape, const Var& x, const std::vector<Var>& mu, const Sequences& sequences,
                             const Tensor& carried) {
  const std::int64_t channels = x.value().channels();
  assert(!mu.empty() && mu.size() <= kMostMixtures);
  require_shape("token_shift: x", x.value(), {sequences.rows(), channels});
  if (carried) require_shape("token_shift: carried", carried, {sequences.count, channels});
  if (sequences.starts)
    require_shape("token_shift: starts", sequences.starts, {sequences.count, sequences.length});
  const Backend& backend = tape.backend();
  std::vector<Tensor> rates, mixed;
  std::vector<Source> sources{x};
  for (const Var& rate : mu) {
    require_shape("token_shift: mu", rate.value(), {channels});
    rates.push_back(rate.value());
    mixed.push_back(tape.empty(x.shape(), x.dtype()));
    sources.emplace_back(rate);
  }
  const Tensor before = carried && tape.recording() ? clone(backend.memory(), carried) : Tensor();
  backend.token_shift().token_shift(TokenShiftForward{
      .sequences = sequences, .x = x.value(), .mu = rates, .carried = carried, .mixed = mixed});
  return tape.record(
      "token_shift", sources, mixed,
      [&backend, sequences, x, mu, rates, before](std::span<const Tensor> dy, Gradients& into) {
        std::vector<Tensor> dmixed(dy.begin(), dy.end());
        for (Tensor& gradient : dmixed) {
          if (gradient) continue;  // nobody used this mixture
          gradient = Tensor(backend.memory(), x.shape(), x.dtype());
          fill(gradient, 0);
        }
        std::vector<Target> dmu;
        dmu.reserve(mu.size());
        for (const Var& rate : mu) dmu.push_back(into[rate]);
        backend.token_shift().token_shift(TokenShiftBackward{.sequences = sequences,
                                                             .dmixed = dmixed,
                                                             .x = x.value(),
                                                             .mu = rates,
                                                             .before = before,
                                                             .dx = into[x],
                                                             .dmu = dmu});
      });
}

}  // namespace bireme
