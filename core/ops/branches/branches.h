#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "core/autograd/tape.h"
#include "core/ops/sequences.h"

namespace bireme {

/// The rows of x [R, C] as pieces of these lengths, which share its memory. On the way back their gradients
/// are laid side by side.
std::vector<Var> split_rows(Tape& tape, const Var& x, const std::vector<std::int64_t>& lengths);
/// The rows of all pieces, one after another.
Var join_rows(Tape& tape, const std::vector<Var>& pieces);

/// A recurrent operator over documents that branch: each trunk from the state `root`, then each branch from
/// the state that its trunk ends in, whose gradient is the sum over branches.
/// @param inputs  [R, …] each
/// @param root    state before each document, or null for an empty one
/// @param run     (pieces of the inputs, state before them or null, whether the state after them is wanted)
///                → {result [rows, C], state after}
template <class State, class Run>
Var over_branches(Tape& tape, const std::vector<Var>& inputs, const std::vector<Branching>& documents,
                  const State* root, const Run& run) {
  std::vector<std::int64_t> lengths;
  for (const Branching& document : documents)
    for (const Branching::Piece& piece : document.pieces()) lengths.push_back(piece.length);
  std::vector<std::vector<Var>> split;
  split.reserve(inputs.size());
  for (const Var& input : inputs) split.push_back(split_rows(tape, input, lengths));
  std::vector<Var> results;
  for (const Branching& document : documents) {
    const std::vector<Branching::Piece> pieces = document.pieces();
    std::optional<State> fork;
    for (const Branching::Piece& piece : pieces) {
      std::vector<Var> own;
      own.reserve(split.size());
      for (const std::vector<Var>& input : split) own.push_back(input[results.size()]);
      const State* before = piece.is_branch && fork ? &*fork : root;
      const bool wants_after = !piece.is_branch && pieces.size() > 1;
      std::pair<Var, State> result = run(own, before, wants_after);
      results.push_back(std::move(result.first));
      if (wants_after) fork = std::move(result.second);
    }
  }
  return join_rows(tape, results);
}

}  // namespace bireme
