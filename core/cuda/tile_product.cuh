#pragma once

#include "core/cuda/vectors.cuh"
#include "core/cuda/warp.cuh"

namespace bireme::cuda {

inline constexpr int kTile = 64;          // rows, and columns, of a tile
inline constexpr int kTileThreads = 256;  // 16 × 16 of them, each with 4 × 4 numbers of the tile in registers
inline constexpr int kTileSide = 4;       // those 4
inline constexpr int kTileDepth = 16;     // terms of the sums that are staged at a time
inline constexpr int kTileRow =
    kTile + 4;  // the 4 spread columns over banks and keep rows aligned to 16 bytes
inline constexpr int kTileRoom = 2 * kTileDepth * kTileRow;  // numbers of shared memory that a product takes

/// What a thread holds of a tile: rows row(0 … 3), columns column(0 … 3). The 16 threads that share rows are
/// half a warp.
template <class L>
struct TilePart {
  L v[kTileSide][kTileSide] = {};

  static __device__ __forceinline__ int row(int i) {
    return static_cast<int>(threadIdx.x) / 16 * kTileSide + i;
  }
  static __device__ __forceinline__ int column(int j) {
    return static_cast<int>(threadIdx.x) % 16 * kTileSide + j;
  }

  /// f(row, column, number) for each number.
  template <class F>
  __device__ __forceinline__ void each(F&& f) {
#pragma unroll
    for (int i = 0; i < kTileSide; ++i)
#pragma unroll
      for (int j = 0; j < kTileSide; ++j) f(row(i), column(j), v[i][j]);
  }
};

/// Sum over the threads that share rows, the same bits in each. All threads of the block take part.
template <class L>
__device__ __forceinline__ L row_sum(L x) {
  for (int step = 8; step > 0; step /= 2) x += __shfl_xor_sync(kFullWarp, x, step);
  return x;
}

/// Along which index a factor lies in memory: neighbouring threads fetch neighbours.
enum class Along { depth, side };

/// One factor's next terms into shared memory [kTileDepth][kTileRow], zeros past the end.
template <Along kAlong, class L, class Read>
__device__ __forceinline__ void stage_factor(L* room, int begin, int depth, const Read& read) {
#pragma unroll 1
  for (int turn = 0; turn < kTile * kTileDepth / kTileThreads; ++turn) {
    const int i = static_cast<int>(threadIdx.x) + turn * kTileThreads;
    const int side = kAlong == Along::side ? i % kTile : i / kTileDepth,
              k = kAlong == Along::side ? i / kTile : i % kTileDepth;
    room[k * kTileRow + side] = begin + k < depth ? read(side, begin + k) : L{0};
  }
}

/// part += A·B over a whole tile: the sum over k < depth of a(row, k)·b(column, k), in order. Both are asked
/// for every row and column of the tile, and give 0 outside of their matrix. Begins with a barrier: what the
/// block wrote to shared memory before may be read by a and b.
template <Along kA, Along kB, class L, class A, class B>
__device__ __forceinline__ void add_product(TilePart<L>& part, L* room, int depth, const A& a, const B& b) {
  L *left = room, *right = room + kTileDepth * kTileRow;
  for (int begin = 0; begin < depth; begin += kTileDepth) {
    __syncthreads();
    stage_factor<kA>(left, begin, depth, a);
    stage_factor<kB>(right, begin, depth, b);
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kTileDepth; ++k) {
      const auto x = load_pack<kTileSide>(left + k * kTileRow + TilePart<L>::row(0)),
                 y = load_pack<kTileSide>(right + k * kTileRow + TilePart<L>::column(0));
#pragma unroll
      for (int i = 0; i < kTileSide; ++i)
#pragma unroll
        for (int j = 0; j < kTileSide; ++j) part.v[i][j] += x.v[i] * y.v[j];
    }
  }
}

}  // namespace bireme::cuda
