#pragma once

#include <algorithm>

#include "core/autograd/tape.h"
#include "core/cuda/device_memory.h"
#include "core/cuda/vectors.cuh"

namespace bireme::cuda {

inline constexpr int kColumnLanes = 32;  // columns of a block: a warp reads neighbours
inline constexpr int kRowLanes = 8;      // rows that a block sums side by side

/// Where the K sums of each column go; null: nowhere.
template <class L, int K>
struct ColumnTargets {
  L* to[K] = {};
  bool accumulate[K] = {};

  void set(int i, const Target& target) {
    if (!target) return;
    to[i] = target.tensor.data<L>();
    accumulate[i] = target.accumulate;
  }
};

/// One block sums `rows_of_chunk` rows of 32 columns: thread (c, r) takes rows r, r + 8, …, and the eight
/// partial sums are added in order. With a single chunk the result goes to its place at once, else to
/// `partials` [chunks, K, columns].
template <class Op, class L>
__global__ void __launch_bounds__(kColumnLanes* kRowLanes, kLeast<Op>)
    column_partials_kernel(Op op, std::int64_t rows, std::int64_t rows_of_chunk, std::int64_t columns,
                           L* partials, ColumnTargets<L, Op::kSums> targets) {
  constexpr int K = Op::kSums;
  __shared__ L room[K][kRowLanes][kColumnLanes];
  const std::int64_t column = std::int64_t{blockIdx.x} * kColumnLanes + threadIdx.x;
  const std::int64_t begin = blockIdx.y * rows_of_chunk;
  const std::int64_t end = begin + rows_of_chunk < rows ? begin + rows_of_chunk : rows;
  L sums[K] = {};
  if (column < columns)
    for (std::int64_t row = begin + threadIdx.y; row < end; row += kRowLanes) op.add(row, column, sums);
  for (int k = 0; k < K; ++k) room[k][threadIdx.y][threadIdx.x] = sums[k];
  __syncthreads();
  for (int k = static_cast<int>(threadIdx.y); k < K; k += kRowLanes) {
    L total = 0;
    for (int r = 0; r < kRowLanes; ++r) total += room[k][r][threadIdx.x];
    if (column >= columns) continue;
    if (gridDim.y > 1) {
      partials[(std::int64_t{blockIdx.y} * K + k) * columns + column] = total;
    } else if (targets.to[k] != nullptr) {
      contribute(targets.to[k] + column, total, targets.accumulate[k]);
    }
  }
}

/// One thread a column and sum: adds the chunks in order.
template <int K, class L>
__global__ void column_totals_kernel(const L* partials, std::int64_t chunks, std::int64_t columns,
                                     ColumnTargets<L, K> targets) {
  const std::int64_t column = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int k = static_cast<int>(blockIdx.y);
  if (column >= columns || targets.to[k] == nullptr) return;
  L total = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total += partials[(chunk * K + k) * columns + column];
  contribute(targets.to[k] + column, total, targets.accumulate[k]);
}

/// Sums over the rows of a matrix, K = Op::kSums of them for each column: op.add(row, column, sums) adds one
/// entry to each. The order of the sums depends on the shape alone.
template <class Op, class L>
void column_sums(DeviceMemory& memory, const Op& op, std::int64_t rows, std::int64_t columns,
                 const ColumnTargets<L, Op::kSums>& targets) {
  constexpr int K = Op::kSums;
  constexpr std::int64_t kFewestRows = 64, kBlocks = 4 * 132;  // four blocks on each processor of an H100
  const std::int64_t tiles = ceil_div(columns, kColumnLanes);
  const std::int64_t most = std::max<std::int64_t>(1, std::min<std::int64_t>(kBlocks / tiles, 65535));
  const std::int64_t rows_of_chunk = std::max(kFewestRows, ceil_div(rows, most));
  const std::int64_t chunks = std::max<std::int64_t>(1, ceil_div(rows, rows_of_chunk));
  Tensor partials;
  if (chunks > 1) partials = Tensor(memory, {chunks, K, columns}, TypeOf<L>::value);
  L* between = chunks > 1 ? partials.data<L>() : nullptr;
  launch(memory.stream(), {{to_unsigned(tiles), to_unsigned(chunks)}, {kColumnLanes, kRowLanes}},
         column_partials_kernel<Op, L>, op, rows, rows_of_chunk, columns, between, targets);
  if (chunks == 1) return;
  launch(memory.stream(), {{to_unsigned(ceil_div(columns, 128)), K}, {128}}, column_totals_kernel<K, L>,
         between, chunks, columns, targets);
}

/// Columns of a matrix itself.
template <class T>
struct ColumnOp {
  static constexpr int kSums = 1;
  const T* x;
  std::int64_t columns;
  __device__ void add(std::int64_t row, std::int64_t column, Lane<T>* sums) const {
    sums[0] += load(x + row * columns + column);
  }
};

/// target (+)= sums over the rows of x.
template <class T>
void sum_columns(DeviceMemory& memory, const T* x, std::int64_t rows, std::int64_t columns,
                 const Target& target) {
  if (!target) return;
  ColumnTargets<Lane<T>, 1> targets;
  targets.set(0, target);
  column_sums<ColumnOp<T>, Lane<T>>(memory, {x, columns}, rows, columns, targets);
}

/// The address of a tensor's numbers, or null.
template <class T>
T* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

}  // namespace bireme::cuda
