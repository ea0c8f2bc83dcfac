#pragma once

#include "core/cuda/column_sums.cuh"
#include "core/cuda/warp.cuh"
#include "core/ops/norm/norm_kernels.h"

namespace bireme::cuda {

inline constexpr int kUnitWarps = 4;  // rows of a block

inline Grid warp_a_row(std::int64_t rows) {
  return {{to_unsigned(ceil_div(rows, kUnitWarps))}, {kUnitWarps * kWarp}};
}

template <class A, class B>
__device__ __forceinline__ Lane<A> warp_dot(const A* a, const B* b, std::int64_t width) {
  Lane<A> sum = 0;
  for (std::int64_t c = threadIdx.x % kWarp; c < width; c += kWarp) sum += load(a + c) * load(b + c);
  return warp_sum(sum);
}

template <class T>
__global__ void l2_forward_kernel(const T* x, T* u, Lane<T>* norms, std::int64_t rows, std::int64_t width,
                                  Lane<T> floor) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kUnitWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  x += row * width;
  u += row * width;
  const Lane<T> length = sqrt(warp_dot(x, x, width)), norm = length > floor ? length : floor;
  for (std::int64_t c = threadIdx.x % kWarp; c < width; c += kWarp) store(u + c, load(x + c) / norm);
  if (threadIdx.x % kWarp == 0) norms[row] = norm;
}

template <class T>
__global__ void l2_backward_kernel(const T* du, const T* u, const Lane<T>* norms, T* dx, bool accumulate,
                                   std::int64_t rows, std::int64_t width, Lane<T> floor) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kUnitWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const std::int64_t at = row * width;
  const Lane<T> norm = norms[row], along = warp_dot(u + at, du + at, width);
  const Lane<T> radial = norm > floor ? along : Lane<T>{0};
  for (std::int64_t c = at + threadIdx.x % kWarp; c < at + width; c += kWarp)
    contribute(dx + c, (load(du + c) - load(u + c) * radial) / norm, accumulate);
}

inline constexpr double kNormFloor = 1e-12;

template <class T>
void l2_normalize(DeviceMemory& memory, const L2NormalizeForward& a) {
  if (a.x.rows() == 0) return;
  launch(memory.stream(), warp_a_row(a.x.rows()), l2_forward_kernel<T>, a.x.data<T>(), a.u.data<T>(),
         a.norm.data<Lane<T>>(), a.x.rows(), a.x.channels(), static_cast<Lane<T>>(kNormFloor));
}

template <class T>
void l2_normalize(DeviceMemory& memory, const L2NormalizeBackward& a) {
  if (a.u.rows() == 0) return;
  launch(memory.stream(), warp_a_row(a.u.rows()), l2_backward_kernel<T>, a.du.data<T>(), a.u.data<T>(),
         a.norm.data<Lane<T>>(), a.dx.tensor.data<T>(), a.dx.accumulate, a.u.rows(), a.u.channels(),
         static_cast<Lane<T>>(kNormFloor));
}

template <class W>
__global__ void weight_norm_kernel(const Lane<W>* direction, const Lane<W>* magnitude, W* weight,
                                   Lane<W>* norms, std::int64_t rows, std::int64_t width) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kUnitWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  direction += row * width;
  const Lane<W> norm = sqrt(warp_dot(direction, direction, width)), scale = magnitude[row] / norm;
  for (std::int64_t c = threadIdx.x % kWarp; c < width; c += kWarp)
    store(weight + row * width + c, direction[c] * scale);
  if (threadIdx.x % kWarp == 0) norms[row] = norm;
}

template <class W>
struct WeightNormGradient {
  using L = Lane<W>;
  const W* dweight;
  const L *direction, *magnitude, *norm;
  L *ddirection = nullptr, *dmagnitude = nullptr;
  bool add_direction = false, add_magnitude = false;
  std::int64_t rows, width;
};

template <class W>
__global__ void weight_norm_backward_kernel(WeightNormGradient<W> a) {
  using L = Lane<W>;
  const std::int64_t row = std::int64_t{blockIdx.x} * kUnitWarps + threadIdx.x / kWarp;
  if (row >= a.rows) return;
  const std::int64_t at = row * a.width;
  const L norm = a.norm[row], dg = warp_dot(a.direction + at, a.dweight + at, a.width) / norm;
  if (a.dmagnitude != nullptr && threadIdx.x % kWarp == 0)
    contribute(a.dmagnitude + row, dg, a.add_magnitude);
  if (a.ddirection == nullptr) return;
  const L scale = a.magnitude[row] / norm, radial = dg / norm;
  for (std::int64_t c = at + threadIdx.x % kWarp; c < at + a.width; c += kWarp)
    contribute(a.ddirection + c, (load(a.dweight + c) - a.direction[c] * radial) * scale, a.add_direction);
}

template <class W>
void weight_norm(DeviceMemory& memory, const WeightNormForward& a) {
  using L = Lane<W>;
  launch(memory.stream(), warp_a_row(a.direction.rows()), weight_norm_kernel<W>, a.direction.data<L>(),
         a.magnitude.data<L>(), a.weight.data<W>(), a.norm.data<L>(), a.direction.rows(),
         a.direction.channels());
}

template <class W>
void weight_norm(DeviceMemory& memory, const WeightNormBackward& a) {
  using L = Lane<W>;
  WeightNormGradient<W> g{.dweight = a.dweight.data<W>(),
                          .direction = a.direction.data<L>(),
                          .magnitude = a.magnitude.data<L>(),
                          .norm = a.norm.data<L>(),
                          .rows = a.direction.rows(),
                          .width = a.direction.channels()};
  if (a.ddirection) g.ddirection = a.ddirection.tensor.data<L>(), g.add_direction = a.ddirection.accumulate;
  if (a.dmagnitude) g.dmagnitude = a.dmagnitude.tensor.data<L>(), g.add_magnitude = a.dmagnitude.accumulate;
  launch(memory.stream(), warp_a_row(g.rows), weight_norm_backward_kernel<W>, g);
}

}  // namespace bireme::cuda
