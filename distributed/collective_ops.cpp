#include "distributed/collective_ops.h"

namespace bireme {

Var copy_to(Tape& tape, const Var& x, Communicator& axis) {
  if (axis.size() == 1) return x;
  const Backend& backend = tape.backend();
  return tape.record("copy_to", {x}, x.value(), [&axis, &backend, x](const Tensor& dy, Gradients& into) {
    // A gradient that was handed to several is theirs as well.
    const Tensor sum = dy.shared() ? clone(backend.memory(), dy) : dy;
    axis.all_reduce(sum, Reduce::sum).wait();
    into.give(x, sum);
  });
}

Var reduce_from(Tape& tape, const Var& x, Communicator& axis) {
  if (axis.size() == 1) return x;
  axis.all_reduce(x.value(), Reduce::sum).wait();
  return tape.record("reduce_from", {x}, x.value(),
                     [x](const Tensor& dy, Gradients& into) { into.give(x, dy); });
}

}  // namespace bireme
