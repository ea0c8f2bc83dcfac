#pragma once

#include "core/cuda/column_sums.cuh"
#include "core/cuda/warp.cuh"

namespace bireme::cuda {

inline constexpr int kNormWarps = 4;  // rows of a block: enough loads in flight, no tail of idle warps

/// Layer, RMS and group norm are one kernel: a row of `width` numbers, of which `groups` share a token.
/// Without a mean it is the RMS norm. x_sum = x + scale ∘ branch, where there is a branch, is written on the
/// way.
template <class X, class Y>
struct NormArguments {
  using L = Lane<X>;
  const X* x = nullptr;
  const Y* branch = nullptr;
  const L* scale = nullptr;  // of each row
  X* x_sum = nullptr;
  const L* gain = nullptr;
  const L* bias = nullptr;
  Y* y = nullptr;
  L* mean = nullptr;
  L* reciprocal = nullptr;
  std::int64_t rows = 0, width = 0, groups = 1;
  float offset = 0, epsilon = 0;
};

/// One warp a row. The row is read once from memory, then from L1: a mean, a variance in a pass of its own,
/// since one pass loses it at large means.
template <int N, class X, class Y>
__global__ void __launch_bounds__(kNormWarps* kWarp) norm_kernel(NormArguments<X, Y> a) {
  using L = Lane<X>;
  const std::int64_t row = std::int64_t{blockIdx.x} * kNormWarps + threadIdx.x / kWarp;
  if (row >= a.rows) return;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const std::int64_t at = row * a.width, parameters = row % a.groups * a.width;
  const X* x = a.x + at;
  const bool centred = a.mean != nullptr;
  L total = 0;
  if (a.branch != nullptr) {
    const L scale = a.scale != nullptr ? a.scale[row] : L{1};
    for (std::int64_t c = lane * N; c < a.width; c += kWarp * N) {
      auto sum = load_pack<N>(x + c);
      const auto branch = load_pack<N>(a.branch + at + c);
      for (int j = 0; j < N; ++j) sum.v[j] = scale * branch.v[j] + sum.v[j];
      store_pack<N>(a.x_sum + at + c, sum);
      for (int j = 0; j < N; ++j) total += centred ? sum.v[j] : sum.v[j] * sum.v[j];
    }
    x = a.x_sum + at;
  } else {
    for (std::int64_t c = lane * N; c < a.width; c += kWarp * N) {
      const auto v = load_pack<N>(x + c);
      for (int j = 0; j < N; ++j) total += centred ? v.v[j] : v.v[j] * v.v[j];
    }
  }
  const L count = static_cast<L>(a.width);
  L mean = 0, squares = warp_sum(total);
  if (centred) {
    mean = squares / count;
    L deviations = 0;
    for (std::int64_t c = lane * N; c < a.width; c += kWarp * N) {
      const auto v = load_pack<N>(x + c);
      for (int j = 0; j < N; ++j) deviations += (v.v[j] - mean) * (v.v[j] - mean);
    }
    squares = warp_sum(deviations);
  }
  const L reciprocal = L{1} / sqrt(squares / count + static_cast<L>(a.epsilon));
  for (std::int64_t c = lane * N; c < a.width; c += kWarp * N) {
    const auto v = load_pack<N>(x + c), gain = load_pack<N>(a.gain + parameters + c);
    Pack<L, N> y;
    for (int j = 0; j < N; ++j) {
      L normal = (v.v[j] - mean) * reciprocal;
      if (!centred) normal = stored<Y>(normal);
      y.v[j] = normal * (gain.v[j] + static_cast<L>(a.offset));
    }
    if (a.bias != nullptr) {
      const auto bias = load_pack<N>(a.bias + parameters + c);
      for (int j = 0; j < N; ++j) y.v[j] += bias.v[j];
    }
    store_pack<N>(a.y + at + c, y);
  }
  if (lane == 0) {
    if (centred) a.mean[row] = mean;
    a.reciprocal[row] = reciprocal;
  }
}

template <class X, class Y>
void run_norm(DeviceMemory& memory, const NormArguments<X, Y>& a) {
  if (a.rows == 0) return;
  const Grid grid{{to_unsigned(ceil_div(a.rows, kNormWarps))}, {kNormWarps * kWarp}};
  constexpr int N = kWidth<X, Y>;
  with_packs<N>(fits_packs(a.width, N, a.x, a.branch, a.x_sum, a.gain, a.bias, a.y), [&](auto width) {
    launch(memory.stream(), grid, norm_kernel<decltype(width)::value, X, Y>, a);
  });
}

}  // namespace bireme::cuda
