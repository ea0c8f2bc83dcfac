#pragma once

#include "core/cuda/column_sums.cuh"
#include "core/cuda/tile_product.cuh"

namespace bireme::cuda {

/// What dR and db are made of.
template <class L>
struct SlstmHistory {
  const L* dgates;           // [B·T, H, 4, D]
  const L *hidden, *before;  // [B·T, H, D], and h before the first token [B, H, D], or null
  const std::uint8_t* starts;
  std::int64_t time, heads, units, rows;

  /// h of the step before, as the step saw it.
  __device__ L h_before(std::int64_t row, std::int64_t head, std::int64_t unit) const {
    if (starts != nullptr && starts[row] != 0) return 0;
    if (row % time > 0) return hidden[((row - 1) * heads + head) * units + unit];
    return before != nullptr ? before[(row / time * heads + head) * units + unit] : L{0};
  }
};

/// dR [H, 4·D, D] = Σ over rows of dgates ⊗ h of the step before: a block sums one tile over its chunk of
/// rows.
template <class L>
__global__ void __launch_bounds__(kTileThreads, 2)
    slstm_recurrent_gradient_kernel(SlstmHistory<L> a, std::int64_t rows_of_chunk, L* partials) {
  const std::int64_t head = blockIdx.z, across = (a.units + kTile - 1) / kTile;
  const std::int64_t first_gate = blockIdx.y / across * kTile, first_unit = blockIdx.y % across * kTile;
  const std::int64_t begin = blockIdx.x * rows_of_chunk,
                     rest = a.rows - begin < rows_of_chunk ? a.rows - begin : rows_of_chunk;
  TilePart<L> part;
  add_product<Along::side, Along::side>(
      part, dynamic_shared<L>(), static_cast<int>(rest),
      [&](int r, int k) {
        return first_gate + r < 4 * a.units
                   ? a.dgates[((begin + k) * a.heads + head) * 4 * a.units + first_gate + r]
                   : L{0};
      },
      [&](int j, int k) {
        return first_unit + j < a.units ? a.h_before(begin + k, head, first_unit + j) : L{0};
      });
  L* to = partials + ((blockIdx.x * a.heads + head) * 4 * a.units + first_gate) * a.units + first_unit;
  part.each([&](int r, int j, L x) {
    if (first_gate + r < 4 * a.units && first_unit + j < a.units) to[r * a.units + j] = x;
  });
}

/// Columns of db [4, H, D].
template <class L>
struct SlstmBiasOp {
  static constexpr int kSums = 1;
  SlstmHistory<L> a;
  __device__ void add(std::int64_t row, std::int64_t column, L* sums) const {
    const std::int64_t unit = column % a.units, head = column / a.units % a.heads,
                       gate = column / a.units / a.heads;
    sums[0] += a.dgates[((row * a.heads + head) * 4 + gate) * a.units + unit];
  }
};

template <class L>
void slstm_weight_gradients(DeviceMemory& memory, const SlstmHistory<L>& a, const Target& drecurrent,
                            const Target& dbias) {
  if (dbias) {
    ColumnTargets<L, 1> targets;
    targets.set(0, dbias);
    column_sums<SlstmBiasOp<L>, L>(memory, {a}, a.rows, 4 * a.heads * a.units, targets);
  }
  if (!drecurrent) return;
  constexpr std::int64_t kBlocks = 4 * 132;  // four on each processor of an H100
  const std::int64_t tiles = ceil_div(4 * a.units, kTile) * ceil_div(a.units, kTile),
                     most = std::max<std::int64_t>(1, kBlocks / (tiles * a.heads));
  const std::int64_t rows_of_chunk = std::max<std::int64_t>(kTile, ceil_div(a.rows, most)),
                     chunks = ceil_div(a.rows, rows_of_chunk), numbers = a.heads * 4 * a.units * a.units;
  const Tensor partials(memory, {chunks, numbers}, TypeOf<L>::value);
  launch(memory.stream(),
         {{to_unsigned(chunks), to_unsigned(tiles), to_unsigned(a.heads)},
          {kTileThreads},
          kTileRoom * sizeof(L)},
         slstm_recurrent_gradient_kernel<L>, a, rows_of_chunk, partials.data<L>());
  sum_columns<L>(memory, partials.data<L>(), chunks, numbers, drecurrent);
}

}  // namespace bireme::cuda
