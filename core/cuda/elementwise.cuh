#pragma once

#include <algorithm>

#include "core/cuda/vectors.cuh"

namespace bireme::cuda {

inline constexpr int kElementThreads = 256;

/// One pack a turn; a block strides over the whole range, so that the grid need not grow with it.
template <int N, class Op>
__global__ void __launch_bounds__(kElementThreads, kLeast<Op>) elementwise_kernel(Op op, std::int64_t count) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x * N;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * N; i < count; i += step)
    op.template run<N>(i);
}

/// Calls op.run<N>(i) for the elements i … i + N - 1: N = Width where `packs` holds, else 1.
template <int Width, class Op>
void elementwise(cudaStream_t stream, std::int64_t count, bool packs, const Op& op) {
  if (count == 0) return;
  constexpr std::int64_t kMostBlocks = 132 * 16;  // two waves of eight blocks on each processor of an H100
  const std::int64_t items = packs ? count / Width : count;
  const Grid grid{{to_unsigned(std::min(ceil_div(items, kElementThreads), kMostBlocks))}, {kElementThreads}};
  with_packs<Width>(packs, [&](auto width) {
    launch(stream, grid, elementwise_kernel<decltype(width)::value, Op>, op, count);
  });
}

}  // namespace bireme::cuda
