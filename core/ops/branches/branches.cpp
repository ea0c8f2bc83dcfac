#include "core/ops/branches/branches.h"

#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

std::vector<Var> split_rows(Tape& tape, const Var& x, const std::vector<std::int64_t>& lengths) {
  std::vector<Tensor> pieces;
  std::int64_t begin = 0;
  for (const std::int64_t length : lengths) {
    pieces.push_back(x.value().slice(begin, begin + length));
    begin += length;
  }
  require_shape("split_rows: x", x.value(), {begin, x.value().channels()});
  const PointwiseKernels& kernels = tape.backend().pointwise();
  return tape.record("split_rows", {x}, pieces,
                     [&kernels, x, lengths](std::span<const Tensor> dy, Gradients& into) {
                       const Target dx = into[x];
                       if (!dx) return;
                       std::int64_t row = 0;
                       for (std::size_t i = 0; i < lengths.size(); ++i) {
                         const Tensor to = dx.tensor.slice(row, row + lengths[i]);
                         row += lengths[i];
                         if (dy[i]) {
                           kernels.add({.from = dy[i], .to = to, .accumulate = dx.accumulate});
                         } else if (!dx.accumulate) {
                           fill(to, 0);  // nobody used this piece
                         }
                       }
                     });
}

Var join_rows(Tape& tape, const std::vector<Var>& pieces) {
  std::int64_t rows = 0;
  for (const Var& piece : pieces) rows += piece.value().rows();
  const Tensor y = tape.empty({rows, pieces.front().value().channels()}, pieces.front().dtype());
  const PointwiseKernels& kernels = tape.backend().pointwise();
  std::vector<Source> sources;
  std::int64_t row = 0;
  for (const Var& piece : pieces) {
    const std::int64_t length = piece.value().rows();
    kernels.add({.from = piece.value(), .to = y.slice(row, row + length), .accumulate = false});
    row += length;
    sources.emplace_back(piece);
  }
  return tape.record("join_rows", sources, y, [pieces](const Tensor& dy, Gradients& into) {
    std::int64_t begin = 0;
    for (const Var& piece : pieces) {
      const std::int64_t length = piece.value().rows();
      into.give(piece, dy.slice(begin, begin + length));
      begin += length;
    }
  });
}

}  // namespace bireme
