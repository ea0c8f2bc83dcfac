#include "distributed/collective_ops.h"

#include "core/ops/pointwise/pointwise_kernels.h"

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

Var copy_to(Tape& tape, Parameter& parameter, Communicator& axis) {
  const Backend& backend = tape.backend();
  return tape.record(
      "copy_to", {parameter}, parameter.value(),
      [&axis, &backend, &parameter](const Tensor& dy, Gradients& into) {
        const Tensor sum = dy.shared() ? clone(backend.memory(), dy) : dy;
        if (axis.size() > 1) axis.all_reduce(sum, Reduce::sum).wait();
        if (const Target target = into[parameter])
          backend.pointwise().add({.from = sum, .to = target.tensor, .accumulate = target.accumulate});
      });
}

namespace {

/// [P, R, C/P] of [R, C]: the channels of each rank as one piece, in the order of ranks.
Tensor to_pieces(Memory& memory, const Tensor& x, int ranks) {
  const std::int64_t rows = x.rows(), share = x.channels() / ranks;
  const Tensor pieces(memory, {ranks, rows, share}, x.dtype());
  for (std::int64_t p = 0; p < ranks; ++p)
    copy_columns(x.reshape({rows, ranks * share}), pieces.slice(p, p + 1),
                 {.from_column = p * share, .columns = share});
  return pieces;
}

Tensor from_pieces(Memory& memory, const Tensor& pieces) {
  const std::int64_t ranks = pieces.shape()[0], rows = pieces.shape()[1], share = pieces.shape()[2];
  const Tensor x(memory, {rows, ranks * share}, pieces.dtype());
  for (std::int64_t p = 0; p < ranks; ++p)
    copy_columns(pieces.slice(p, p + 1), x, {.to_column = p * share, .columns = share});
  return x;
}

Tensor gathered(Memory& memory, const Tensor& share, Communicator& axis) {
  const Tensor pieces(memory, {axis.size(), share.rows(), share.channels()}, share.dtype());
  axis.all_gather(share, pieces).wait();
  return from_pieces(memory, pieces);
}

}  // namespace

Var scatter_channels_from(Tape& tape, const Var& x, Communicator& axis) {
  if (axis.size() == 1) return x;
  Memory& memory = tape.backend().memory();
  const Tensor y = tape.empty({x.value().rows(), x.value().channels() / axis.size()}, x.dtype());
  axis.reduce_scatter(to_pieces(memory, x.value(), axis.size()), y, Reduce::sum).wait();
  return tape.record("scatter_channels_from", {x}, y, [&axis, &memory, x](const Tensor& dy, Gradients& into) {
    into.give(x, gathered(memory, dy, axis));
  });
}

Var own_channels(Tape& tape, const Var& x, Communicator& axis) {
  if (axis.size() == 1) return x;
  Memory& memory = tape.backend().memory();
  const std::int64_t rows = x.value().rows(), share = x.value().channels() / axis.size();
  const Tensor pieces = to_pieces(memory, x.value(), axis.size());
  return tape.record(
      "own_channels", {x}, pieces.slice(axis.rank(), axis.rank() + 1).reshape({rows, share}),
      [&axis, &memory, x](const Tensor& dy, Gradients& into) { into.give(x, gathered(memory, dy, axis)); });
}

Var gather_channels(Tape& tape, const Var& x, Communicator& axis) {
  if (axis.size() == 1) return x;
  Memory& memory = tape.backend().memory();
  return tape.record("gather_channels", {x}, gathered(memory, x.value(), axis),
                     [&axis, &memory, x](const Tensor& dy, Gradients& into) {
                       const Tensor pieces = to_pieces(memory, dy, axis.size());
                       into.give(x, pieces.slice(axis.rank(), axis.rank() + 1).reshape(x.shape()));
                     });
}

}  // namespace bireme
