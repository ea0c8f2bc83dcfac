#pragma once

#include <vector>

#include "core/autograd/tape.h"
#include "core/ops/attention/attention.h"

namespace bireme {

/// A parameter as a value on the tape, unchanged.
Var use(Tape& tape, Parameter& parameter);

/// Rows of a table: y[r] = table[token[r] - first], 0 for tokens whose row another rank holds. In fp32 (fp64)
/// whatever the compute type. The way back adds the rows of a token in order, so the same bits come out on
/// any number of threads.
/// @param tokens  i32, R elements
/// @param table   [V, C] parameter: rows first … first + V - 1 of the vocabulary
/// @return        [R, C]
Var look_up(Tape& tape, const Tensor& tokens, Parameter& table, std::int64_t first = 0);

/// Rows of a value, in any order and as often as they are asked for: y[i] = x[rows[i]]. The way back adds
/// what came for the same row, in order.
/// @param rows  i32, N elements
/// @return      [N, C], type of x
Var gather_rows(Tape& tape, const Var& x, const Tensor& rows);

/// How a grid of position embeddings is sampled at another size.
enum class PositionRule {
  official,  ///< scale (r + 0.1)/√N₀, as DINO's own code
  size,      ///< scale r/g, as Hugging Face's ViT
};

/// Position embeddings for a grid of `rows` × `columns` patches: row 0 (class token) as it is, the others
/// sampled bicubically (a = -0.75, clamped taps, no antialiasing) from the trained g × g grid. In fp32
/// whatever the compute type.
/// @param positions  [1, g·g + 1, C] parameter
/// @param identity   the caller's decision that the grid fits as it is (no sampling)
/// @return           [rows·columns + 1, C]
Var resize_positions(Tape& tape, Parameter& positions, std::int64_t rows, std::int64_t columns,
                     PositionRule rule, bool identity);

/// Token rows of packed pictures: for each picture of each segment, class token + position 0, then patch i +
/// position i + 1.
/// @param patches    [Σ count·(length - 1), C], compute type, pictures in segment order
/// @param positions  one [length, C] for each segment
/// @param segments   length includes the class token
/// @return           [rows_of(segments), C], fp32 (fp64): the residual stream
Var assemble_tokens(Tape& tape, const Var& patches, Parameter& class_token, const std::vector<Var>& positions,
                    const Segments& segments);

/// Picks rows of [R, C]: y[i] = x[rows[i]]; the way back scatters (rows are distinct).
Var select_rows(Tape& tape, const Var& x, const std::vector<std::int64_t>& rows);

}  // namespace bireme
