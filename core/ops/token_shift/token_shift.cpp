#include "core/ops/token_shift/token_shift.h"

#include <cassert>

#include "core/ops/token_shift/token_shift_kernels.h"

namespace bireme {

namespace {

/// One row of a document that branches, and the rows of a piece of it.
Tensor last_row(const Tensor& x, const Branching& document) {
  const std::int64_t row = document.begin + document.trunk - 1;
  return x.slice(row, row + 1);
}
std::vector<Tensor> slices(const std::vector<Tensor>& tensors, const Branching::Piece& piece) {
  std::vector<Tensor> found;
  found.reserve(tensors.size());
  for (const Tensor& tensor : tensors) found.push_back(tensor.slice(piece.begin, piece.begin + piece.length));
  return found;
}

void shift_documents(const Backend& backend, const std::vector<Branching>& documents, const Tensor& x,
                     const std::vector<Tensor>& mu, const std::vector<Tensor>& mixed) {
  for (const Branching& document : documents) {
    for (const Branching::Piece& piece : document.pieces()) {
      const bool follows = piece.is_branch && document.trunk > 0;
      const Tensor carried = follows ? clone(backend.memory(), last_row(x, document)) : Tensor();
      const Sequences rows{.count = 1, .length = piece.length};
      const Tensor own = x.slice(piece.begin, piece.begin + piece.length);
      backend.token_shift().token_shift(TokenShiftForward{
          .sequences = rows, .x = own, .mu = mu, .carried = carried, .mixed = slices(mixed, piece)});
    }
  }
}

/// The trunk comes first: branches add to the gradient of its last row.
void shift_documents_back(const Backend& backend, const std::vector<Branching>& documents,
                          const TokenShiftBackward& whole) {
  bool is_first = true;
  for (const Branching& document : documents) {
    for (const Branching::Piece& piece : document.pieces()) {
      const bool follows = piece.is_branch && document.trunk > 0;
      const Sequences rows{.count = 1, .length = piece.length};
      const Tensor own = whole.x.slice(piece.begin, piece.begin + piece.length);
      const Tensor before = follows ? last_row(whole.x, document) : Tensor();
      const Target& dx = whole.dx;
      const std::vector<Tensor> dmixed = slices(whole.dmixed, piece);
      std::vector<Target> dmu = whole.dmu;
      for (Target& target : dmu) target.accumulate = target.accumulate || !is_first;
      is_first = false;
      TokenShiftBackward part{.sequences = rows,
                              .dmixed = dmixed,
                              .x = own,
                              .mu = whole.mu,
                              .before = before,
                              .dx = {},
                              .dmu = dmu};
      if (dx) {
        part.dx = {dx.tensor.slice(piece.begin, piece.begin + piece.length), dx.accumulate};
        if (follows) part.dbefore = {last_row(dx.tensor, document), true};
      }
      backend.token_shift().token_shift(part);
    }
  }
}

}  // namespace

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
  if (sequences.documents.empty()) {
    backend.token_shift().token_shift(TokenShiftForward{
        .sequences = sequences, .x = x.value(), .mu = rates, .carried = carried, .mixed = mixed});
  } else {
    shift_documents(backend, sequences.documents, x.value(), rates, mixed);
  }
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
        const TokenShiftBackward whole{.sequences = sequences,
                                       .dmixed = dmixed,
                                       .x = x.value(),
                                       .mu = rates,
                                       .before = before,
                                       .dx = into[x],
                                       .dmu = dmu};
        if (sequences.documents.empty()) {
          backend.token_shift().token_shift(whole);
        } else {
          shift_documents_back(backend, sequences.documents, whole);
        }
      });
}

}  // namespace bireme
