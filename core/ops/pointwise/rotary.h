#pragma once

#include <string>
#include <vector>

#include "core/autograd/tape.h"

namespace bireme {

/// Rotary position embeddings (Su et al. 2021) and how their frequencies are stretched for longer contexts,
/// in the words of published configurations.
struct RotaryOptions {
  double theta = 10000;
  std::string type = "default";  ///< default, linear, dynamic, llama3 or yarn
  double factor = 1;
  double low_frequency_factor = 1;      ///< llama3
  double high_frequency_factor = 4;     ///< llama3
  std::int64_t original_positions = 0;  ///< llama3, yarn, dynamic: context before stretching
  double beta_fast = 32;                ///< yarn
  double beta_slow = 1;                 ///< yarn
  double attention_factor = 0;          ///< yarn: of cosines and sines; 0: 0.1 · log(factor) + 1
};

/// f_j for j = 0 … dimension/2 - 1, in fp32 as published models compute them.
/// @param length  tokens that will be looked at together; counts for the type dynamic only
/// @throws Error  (usage) naming a type that is not known
std::vector<float> rotary_frequencies(const RotaryOptions& options, std::int64_t dimension,
                                      std::int64_t length);

/// cos and sin of position · f_j: [positions, dimension/2] each, fp32 (fp64).
struct RotaryTable {
  Tensor cosines, sines;

  RotaryTable() = default;
  RotaryTable(Memory& memory, const RotaryOptions& options, std::int64_t dimension, std::int64_t positions,
              DType type);
  std::int64_t positions() const { return cosines.defined() ? cosines.rows() : 0; }
};

/// Turns component j of a head against component j + d/2 by the angle of its row's position, in the first
/// `heads` heads of each row (queries and keys of packed queries, keys and values).
/// @param x          [R, ≥ heads · d], whose memory it takes: x is not to be read afterwards
/// @param positions  [R] i32, below the table's
Var rotate(Tape& tape, const Var& x, const RotaryTable& table, const Tensor& positions, int heads);

}  // namespace bireme
