#pragma once

#include "core/ops/norm/layer_norm_cuda.cuh"

namespace bireme::cuda {

/// The way back of layer, RMS and group norm, as NormArguments has them. dx takes `direct` as well, the
/// gradient that reaches the sum past the norm, and dbranch = scale ∘ dx.
template <class X, class Y>
struct NormGradient {
  using L = Lane<X>;
  const Y* dy = nullptr;
  const X* x = nullptr;
  const L* gain = nullptr;
  const L* mean = nullptr;  // null: RMS norm
  const L* reciprocal = nullptr;
  const X* direct = nullptr;
  const L* scale = nullptr;
  std::int64_t rows = 0, width = 0, groups = 1;
  float offset = 0;
  X* dx = nullptr;
  Y* dbranch = nullptr;
  bool add_dx = false, add_dbranch = false;

  void set(const Target& to_x, const Target& to_branch) {
    if (to_x) dx = to_x.tensor.data<X>(), add_dx = to_x.accumulate;
    if (to_branch) dbranch = to_branch.tensor.data<Y>(), add_dbranch = to_branch.accumulate;
  }
};

/// dx of one row by a warp, which reads dy and x from memory once, then from L1. `hand_on` is given dy and
/// the normalised x of each pack of columns, for sums over rows.
template <int N, class X, class Y, class HandOn>
__device__ __forceinline__ void norm_gradient_row(const NormGradient<X, Y>& a, std::int64_t row, int lane,
                                                  const HandOn& hand_on) {
  using L = Lane<X>;
  const std::int64_t at = row * a.width;
  const L* gains = a.gain + row % a.groups * a.width;
  const L mean = a.mean != nullptr ? a.mean[row] : L{0}, reciprocal = a.reciprocal[row];
  const L offset = static_cast<L>(a.offset), count = static_cast<L>(a.width);
  L sum = 0, products = 0;
  for (std::int64_t c = lane * N; c < a.width; c += kWarp * N) {
    const auto dy = load_pack<N>(a.dy + at + c);
    const auto gain = load_pack<N>(gains + c);
    auto normal = load_pack<N>(a.x + at + c);
    for (int j = 0; j < N; ++j) {
      const L g = dy.v[j] * (gain.v[j] + offset);
      normal.v[j] = (normal.v[j] - mean) * reciprocal;
      sum += g;
      products += g * normal.v[j];
    }
    hand_on(c, dy, normal);
  }
  const L mean_g = a.mean != nullptr ? warp_sum(sum) / count : L{0}, along = warp_sum(products) / count;
  const L scale = a.scale != nullptr ? a.scale[row] : L{1};
  for (std::int64_t c = lane * N; c < a.width; c += kWarp * N) {
    const auto dy = load_pack<N>(a.dy + at + c);
    const auto x = load_pack<N>(a.x + at + c), gain = load_pack<N>(gains + c);
    Pack<L, N> dx;
    for (int j = 0; j < N; ++j)
      dx.v[j] = reciprocal * (dy.v[j] * (gain.v[j] + offset) - mean_g - (x.v[j] - mean) * reciprocal * along);
    if (a.direct != nullptr) {
      const auto direct = load_pack<N>(a.direct + at + c);
      for (int j = 0; j < N; ++j) dx.v[j] += direct.v[j];
    }
    if (a.dx != nullptr) contribute_pack<N>(a.dx + at + c, dx, a.add_dx);
    if (a.dbranch != nullptr) {
      for (int j = 0; j < N; ++j) dx.v[j] *= scale;
      Pack<Lane<Y>, N> branch;
      for (int j = 0; j < N; ++j) branch.v[j] = static_cast<Lane<Y>>(dx.v[j]);
      contribute_pack<N>(a.dbranch + at + c, branch, a.add_dbranch);
    }
  }
}

/// One warp a row.
template <int N, class X, class Y>
__global__ void __launch_bounds__(kNormWarps* kWarp) norm_backward_kernel(NormGradient<X, Y> a) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kNormWarps + threadIdx.x / kWarp;
  if (row >= a.rows) return;
  norm_gradient_row<N>(a, row, static_cast<int>(threadIdx.x % kWarp), [](auto&&...) {});
}

/// Blocks of the kernel below that a processor is to hold: 128 registers a thread. Left to itself ptxas takes
/// 64, and spills.
inline constexpr int kNormBlocks = 4;

/// The same, and from the same reading the sums for gain and (K = 2) bias: a warp takes every fourth token of
/// its block's run, with all groups, and adds to columns of its own in shared memory, [warps, K, C]. A lane
/// meets the same columns in every row, so that only the end needs a barrier. To `partials` [blocks, K, C].
template <int N, int K, class X, class Y>
__global__ void __launch_bounds__(kNormWarps* kWarp, kNormBlocks)
    norm_backward_sums_kernel(NormGradient<X, Y> a, std::int64_t tokens_of_block, Lane<X>* partials) {
  using L = Lane<X>;
  const std::int64_t columns = a.groups * a.width, tokens = a.rows / a.groups;
  const int warp = static_cast<int>(threadIdx.x / kWarp), lane = static_cast<int>(threadIdx.x % kWarp);
  L *room = dynamic_shared<L>(), *own = room + warp * K * columns;
  for (std::int64_t first = 0; first < K * columns; first += a.width)
    for (std::int64_t c = lane * N; c < a.width; c += kWarp * N) store_pack<N>(own + first + c, Pack<L, N>{});
  const std::int64_t begin = blockIdx.x * tokens_of_block,
                     end = begin + tokens_of_block < tokens ? begin + tokens_of_block : tokens;
  for (std::int64_t token = begin + warp; token < end; token += kNormWarps)
    for (std::int64_t group = 0; group < a.groups; ++group) {
      L* gains = own + group * a.width;
      norm_gradient_row<N>(a, token * a.groups + group, lane,
                           [gains, columns](std::int64_t c, const auto& dy, const Pack<L, N>& normal) {
                             auto gain = load_pack<N>(gains + c);
                             for (int j = 0; j < N; ++j) gain.v[j] += dy.v[j] * normal.v[j];
                             store_pack<N>(gains + c, gain);
                             if constexpr (K == 2) {
                               auto bias = load_pack<N>(gains + columns + c);
                               for (int j = 0; j < N; ++j) bias.v[j] += dy.v[j];
                               store_pack<N>(gains + columns + c, bias);
                             }
                           });
    }
  __syncthreads();
  for (std::int64_t c = threadIdx.x; c < K * columns; c += kNormWarps * kWarp) {
    L total = 0;
    for (int w = 0; w < kNormWarps; ++w) total += room[w * K * columns + c];
    partials[blockIdx.x * K * columns + c] = total;
  }
}

/// Sums over rows [K, C].
template <class L, int K>
struct StackedColumnsOp {
  static constexpr int kSums = K;
  const L* x;
  std::int64_t columns;
  __device__ void add(std::int64_t row, std::int64_t column, L* sums) const {
    for (int k = 0; k < K; ++k) sums[k] += x[(row * K + k) * columns + column];
  }
};

/// dgain and dbias alone, entry by entry of tokens [rows / groups, groups · width].
template <class X, class Y>
struct NormParameterOp {
  static constexpr int kSums = 2;
  NormGradient<X, Y> a;

  __device__ void add(std::int64_t token, std::int64_t column, Lane<X>* sums) const {
    const std::int64_t row = token * a.groups + column / a.width;
    const Lane<X> dy = load(a.dy + token * a.groups * a.width + column);
    const Lane<X> x = load(a.x + token * a.groups * a.width + column);
    const Lane<X> mean = a.mean != nullptr ? a.mean[row] : Lane<X>{0};
    sums[0] += dy * ((x - mean) * a.reciprocal[row]);
    sums[1] += dy;
  }
};

template <class X, class Y, class F>
void with_packs_of(const NormGradient<X, Y>& a, F&& f) {
  constexpr int N = kWidth<X, Y>;
  with_packs<N>(fits_packs(a.width, N, a.dy, a.x, a.gain, a.direct, a.dx, a.dbranch), f);
}

/// Shared memory of a block, in which it sums.
template <int K, class L>
std::int64_t norm_sums_bytes(std::int64_t columns) {
  return std::int64_t{kNormWarps} * K * columns * static_cast<std::int64_t>(sizeof(L));
}

/// dx and K sums of each column in one pass.
template <int K, class X, class Y>
void run_norm_backward_sums(DeviceMemory& memory, const NormGradient<X, Y>& a, const Target& dgain,
                            const Target& dbias) {
  using L = Lane<X>;
  constexpr std::int64_t kBlocks = kNormBlocks * 132;  // processors of an H100
  const std::int64_t tokens = a.rows / a.groups, columns = a.groups * a.width;
  const std::int64_t tokens_of_block = std::max<std::int64_t>(kNormWarps, ceil_div(tokens, kBlocks)),
                     blocks = ceil_div(tokens, tokens_of_block);
  const Tensor partials(memory, {blocks, K, columns}, TypeOf<L>::value);
  const Grid grid{
      {to_unsigned(blocks)}, {kNormWarps * kWarp}, static_cast<std::size_t>(norm_sums_bytes<K, L>(columns))};
  with_packs_of(a, [&](auto width) {
    launch(memory.stream(), grid, norm_backward_sums_kernel<decltype(width)::value, K, X, Y>, a,
           tokens_of_block, partials.data<L>());
  });
  ColumnTargets<L, K> targets;
  targets.set(0, dgain);
  if constexpr (K == 2) targets.set(1, dbias);
  column_sums<StackedColumnsOp<L, K>, L>(memory, {partials.data<L>(), columns}, blocks, columns, targets);
}

template <class X, class Y>
void run_norm_backward(DeviceMemory& memory, const NormGradient<X, Y>& a, const Target& dgain,
                       const Target& dbias) {
  using L = Lane<X>;
  constexpr std::int64_t kMostShared = 64 << 10;  // three blocks on a processor
  const std::int64_t columns = a.groups * a.width;
  const bool moves = a.rows > 0 && (a.dx != nullptr || a.dbranch != nullptr);
  if (moves && dgain && !dbias && norm_sums_bytes<1, L>(columns) <= kMostShared)
    return run_norm_backward_sums<1>(memory, a, dgain, dbias);
  if (moves && dbias && norm_sums_bytes<2, L>(columns) <= kMostShared)
    return run_norm_backward_sums<2>(memory, a, dgain, dbias);
  // The sums first: dx may take the place of what they read.
  if (dgain || dbias) {
    ColumnTargets<L, 2> targets;
    targets.set(0, dgain);
    targets.set(1, dbias);
    column_sums<NormParameterOp<X, Y>, L>(memory, {a}, a.rows / a.groups, columns, targets);
  }
  if (!moves) return;
  const Grid grid{{to_unsigned(ceil_div(a.rows, kNormWarps))}, {kNormWarps * kWarp}};
  with_packs_of(a, [&](auto width) {
    launch(memory.stream(), grid, norm_backward_kernel<decltype(width)::value, X, Y>, a);
  });
}

}  // namespace bireme::cuda
