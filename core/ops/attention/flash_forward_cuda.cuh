#pragma once

#include <limits>

#include "core/base/error.h"
#include "core/cuda/column_sums.cuh"
#include "core/cuda/warp.cuh"

namespace bireme::cuda {

inline constexpr int kFlashWarps = 4, kFlashRows = 4;  // rows (queries, or keys on the way back) of a warp
inline constexpr int kFlashTile = kWarp;               // columns of a tile: one a lane
inline constexpr int kFlashBlock = kFlashWarps * kFlashRows;  // rows of a block

/// Queries, keys and values of equally long sequences, and what each row sees.
template <class T>
struct FlashShape {
  const T *q, *k, *v;
  std::int64_t q_row, k_row;    // numbers from one row to the next
  std::int64_t k_head;          // from one key head to the next
  std::int64_t k_sequence = 0;  // from one sequence to the next
  std::int64_t heads, group;    // query heads, and how many of them share keys
  std::int64_t dimension;
  Lane<T> scale;
  std::int64_t sequences = 1, length = 0, first_row = 0;  // rows of queries, counted in the whole tensor
  bool causal = false;
  const std::int32_t* first = nullptr;   // of each row: the first column that it sees
  std::int64_t trunk = 0;                // columns that every row sees up to itself, whatever `first` says
  const std::int64_t* before = nullptr;  // of each sequence: columns before its first row (a cache)

  __device__ std::int64_t row(std::int64_t sequence, std::int64_t t) const {
    return first_row + sequence * length + t;
  }
  __device__ std::int64_t low(std::int64_t sequence, std::int64_t t) const {
    return first != nullptr ? first[row(sequence, t)] : 0;
  }
  /// One past the last column.
  __device__ std::int64_t high(std::int64_t sequence, std::int64_t t) const {
    return causal ? t + 1 + (before != nullptr ? before[sequence] : 0) : length;
  }
  __device__ bool sees(std::int64_t sequence, std::int64_t t, std::int64_t column) const {
    return (column >= low(sequence, t) || column < trunk) && column < high(sequence, t);
  }
  /// The first column that any row from t on sees.
  __device__ std::int64_t lowest(std::int64_t sequence, std::int64_t t) const {
    return trunk > 0 ? 0 : low(sequence, t);
  }
  __device__ const T* query(std::int64_t sequence, std::int64_t t, std::int64_t head) const {
    return q + row(sequence, t) * q_row + head * dimension;
  }
  __device__ std::int64_t key(std::int64_t sequence, std::int64_t column, std::int64_t head) const {
    return first_row * k_row + sequence * k_sequence + column * k_row + head / group * k_head;
  }
};

/// Room of a block, in numbers: two tiles with rows padded against bank conflicts, the block's own rows
/// (twice on the way back), and weights.
inline std::int64_t flash_numbers(std::int64_t dimension, int own_rows) {
  return 2 * kFlashTile * (dimension + 1) + own_rows * kFlashBlock * dimension + 2 * kFlashBlock * kFlashTile;
}

template <class L>
__device__ __forceinline__ L dot(const L* a, const L* b, std::int64_t count) {
  L sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

/// Keys and values of the tile's columns below `high`, zeros past it; rows are d + 1 apart, so that the lanes
/// of a warp fall on different banks. By the whole block, between barriers.
template <class T>
__device__ void load_key_tile(const FlashShape<T>& s, std::int64_t sequence, std::int64_t head,
                              std::int64_t tile, std::int64_t high, Lane<T>* keys, Lane<T>* values) {
  using L = Lane<T>;
  const std::int64_t d = s.dimension, wide = d + 1;
  for (std::int64_t i = threadIdx.x; i < kFlashTile * d; i += blockDim.x) {
    const std::int64_t column = i / d, c = i % d, at = s.key(sequence, tile + column, head) + c;
    const bool inside = tile + column < high;
    keys[column * wide + c] = inside ? load(s.k + at) : L{0};
    values[column * wide + c] = inside ? load(s.v + at) : L{0};
  }
}

/// A block takes 16 queries of one head, four a warp, and walks over tiles of 32 keys in shared memory: lane
/// l scores key l of the tile, then sums components l, l + 32, … of the result, with a running maximum and
/// sum (Dao et al. 2022). Components: most of a lane, ⌈d / 32⌉.
template <class T, int Components>
__global__ void __launch_bounds__(kFlashWarps* kWarp)
    flash_forward_kernel(FlashShape<T> s, T* y, Lane<T>* log_sum) {
  using L = Lane<T>;
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t sequence = blockIdx.z, head = blockIdx.y, d = s.dimension, wide = d + 1;
  const std::int64_t begin = std::int64_t{blockIdx.x} * kFlashBlock;
  const std::int64_t end = begin + kFlashBlock < s.length ? begin + kFlashBlock : s.length;
  L* keys = dynamic_shared<L>();
  L *values = keys + kFlashTile * wide, *queries = values + kFlashTile * wide;
  L* weights = queries + kFlashBlock * d + warp * kFlashRows * kFlashTile;  // of this warp

  for (std::int64_t i = threadIdx.x; i < (end - begin) * d; i += blockDim.x)
    queries[i] = load(s.query(sequence, begin + i / d, head) + i % d) * s.scale;

  const std::int64_t mine = begin + warp * kFlashRows;
  L most[kFlashRows], total[kFlashRows], sums[kFlashRows][Components];
#pragma unroll
  for (int r = 0; r < kFlashRows; ++r) {
    most[r] = -std::numeric_limits<L>::infinity();
    total[r] = 0;
#pragma unroll
    for (int c = 0; c < Components; ++c) sums[r][c] = 0;
  }
  // What rows see only moves on, so the block's first and last row bound its columns.
  const std::int64_t low = s.lowest(sequence, begin) / kFlashTile * kFlashTile,
                     high = s.high(sequence, end - 1);
  for (std::int64_t tile = low; tile < high; tile += kFlashTile) {
    __syncthreads();
    load_key_tile(s, sequence, head, tile, high, keys, values);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kFlashRows; ++r) {
      const std::int64_t t = mine + r;
      if (t >= end) break;
      const std::int64_t column = tile + lane;
      const bool seen = s.sees(sequence, t, column);
      const L score =
          seen ? dot(queries + (t - begin) * d, keys + lane * wide, d) : -std::numeric_limits<L>::infinity();
      const L tallest = warp_max(score), peak = tallest > most[r] ? tallest : most[r];
      // Nothing seen yet: the maximum is still -∞, and weights are 0.
      const L weight = seen ? exp(score - peak) : L{0};
      const L kept = most[r] == peak ? L{1} : exp(most[r] - peak);
      total[r] = total[r] * kept + warp_sum(weight);
      most[r] = peak;
      weights[r * kFlashTile + lane] = weight;
#pragma unroll
      for (int c = 0; c < Components; ++c) sums[r][c] *= kept;
    }
    __syncwarp();
#pragma unroll
    for (int c = 0; c < Components; ++c) {
      const int component = lane + c * kWarp;
      if (component >= d) break;
#pragma unroll 4
      for (int j = 0; j < kFlashTile; ++j) {
        const L value = values[j * wide + component];
#pragma unroll
        for (int r = 0; r < kFlashRows; ++r)
          if (mine + r < end) sums[r][c] += weights[r * kFlashTile + j] * value;
      }
    }
    __syncwarp();
  }
#pragma unroll
  for (int r = 0; r < kFlashRows; ++r) {
    const std::int64_t t = mine + r;
    if (t >= end) break;
    const std::int64_t row = s.row(sequence, t);
#pragma unroll
    for (int c = 0; c < Components; ++c) {
      const int component = lane + c * kWarp;
      if (component < d) store(y + (row * s.heads + head) * d + component, sums[r][c] / total[r]);
    }
    if (lane == 0 && log_sum != nullptr) log_sum[row * s.heads + head] = most[r] + log(total[r]);
  }
}

/// Calls f(constant of the components a lane holds).
template <class F>
void dispatch_components(std::int64_t dimension, F&& f) {
  if (dimension <= 32) return f(std::integral_constant<int, 1>{});
  if (dimension <= 64) return f(std::integral_constant<int, 2>{});
  if (dimension <= 128) return f(std::integral_constant<int, 4>{});
  if (dimension <= 256) return f(std::integral_constant<int, 8>{});
  throw Error(ErrorKind::usage, "an attention head has " + std::to_string(dimension) + " channels",
              "GPU attention", "use more heads: up to 256 channels each");
}

template <class T>
Grid flash_grid(const FlashShape<T>& s, int own_rows) {
  return {{to_unsigned(ceil_div(s.length, kFlashBlock)), to_unsigned(s.heads), to_unsigned(s.sequences)},
          {kFlashWarps * kWarp},
          static_cast<std::size_t>(flash_numbers(s.dimension, own_rows)) * sizeof(Lane<T>)};
}

template <class T>
void flash_forward(DeviceMemory& memory, const FlashShape<T>& s, T* y, Lane<T>* log_sum) {
  if (s.length == 0 || s.sequences == 0) return;
  dispatch_components(s.dimension, [&](auto components) {
    launch(memory.stream(), flash_grid(s, 1), flash_forward_kernel<T, decltype(components)::value>, s, y,
           log_sum);
  });
}

}  // namespace bireme::cuda
