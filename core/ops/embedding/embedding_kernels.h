#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/autograd/tape.h"
#include "core/ops/attention/attention.h"

namespace bireme {

/// y[r] = table[token[r] - first], or 0 where that is no row of the table.
struct LookUpForward {
  const Tensor& tokens;  // [R] i32
  const Tensor& table;   // [V, C]: fp32 (fp64); compute type for rows that are gathered
  std::int64_t first;
  const Tensor& y;  // [R, C]
};
/// dtable[v] = sum of dy[r] over the rows r with token v, in order.
struct LookUpBackward {
  const Tensor &dy, &tokens;
  std::int64_t first;
  Target dtable;
};

/// y[i, j] = sum over a, b of row_weights[i, a] · column_weights[j, b] · grid[a, b], channel by channel.
struct ResizeGridForward {
  const Tensor& grid;                          // [g·g, C], fp32 (fp64)
  const Tensor &row_weights, &column_weights;  // [r, g], [c, g], type of grid
  const Tensor& y;                             // [r·c, C]
};
/// dgrid[a, b] = sum over i, j of row_weights[i, a] · column_weights[j, b] · dy[i, j]
struct ResizeGridBackward {
  const Tensor &dy, &row_weights, &column_weights;
  Target dgrid;
};

/// For each picture: y[0] = class_token + positions[0], y[i] = patches[i - 1] + positions[i].
struct AssembleTokensForward {
  const Tensor& patches;                 // [Σ count·(length - 1), C], compute type
  const Tensor& class_token;             // C elements, fp32 (fp64)
  const std::vector<Tensor>& positions;  // of each segment: [length, C], fp32 (fp64)
  const Segments& segments;
  const Tensor& y;  // [Σ count·length, C], fp32 (fp64)
};
/// Sums over the pictures of a segment run in picture order.
struct AssembleTokensBackward {
  const Tensor& dy;
  const Segments& segments;
  Target dpatches, dclass_token;
  const std::vector<Target>& dpositions;  // of each segment
};

/// y[i] = x[rows[i]]
struct SelectRowsForward {
  const Tensor& x;                     // [R, C]
  std::span<const std::int64_t> rows;  // distinct
  const Tensor& y;                     // [rows, C]
};
/// dx[rows[i]] = dy[i]; the other rows are 0, or stay as they are when dx is added to.
struct SelectRowsBackward {
  const Tensor& dy;
  std::span<const std::int64_t> rows;
  Target dx;
};

class EmbeddingKernels {
 public:
  virtual ~EmbeddingKernels() = default;
  virtual void look_up(const LookUpForward&) const = 0;
  virtual void look_up(const LookUpBackward&) const = 0;
  virtual void resize_grid(const ResizeGridForward&) const = 0;
  virtual void resize_grid(const ResizeGridBackward&) const = 0;
  virtual void assemble_tokens(const AssembleTokensForward&) const = 0;
  virtual void assemble_tokens(const AssembleTokensBackward&) const = 0;
  virtual void select_rows(const SelectRowsForward&) const = 0;
  virtual void select_rows(const SelectRowsBackward&) const = 0;
};

}  // namespace bireme
