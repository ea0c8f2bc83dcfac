#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu/cpu_kernels.h"
#include "core/ops/attention/attention_kernels.h"
#include "core/ops/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/attention/attention_cpu.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

#include "core/cpu/simd.h"
#include "core/cpu/small_products-inl.h"

#ifndef BIREME_ATTENTION_TASK
#define BIREME_ATTENTION_TASK
namespace bireme::cpu {

// Queries are taken this many at a time, so that their rows of scores stay in the second-level cache for
// sequences of thousands of tokens.
constexpr std::int64_t kQueryRows = 64;

/// One head of one sequence. Pointers are at its first row; strides in elements.
template <class T>
struct HeadTask {
  using F = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const T* qkv = nullptr;  // q at 0, k at `channels`, v at 2·channels
  T* y = nullptr;
  F* log_sum = nullptr;  // stride `heads`; or null
  const T* dy = nullptr;
  T* dqkv = nullptr;
  bool accumulate = false;
  float* weights = nullptr;  // [length, length], or null
  std::int64_t length = 0, dimension = 0, channels = 0, heads = 0;
};

}  // namespace bireme::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

inline std::int64_t padded(std::int64_t n, std::int64_t lanes) { return (n + lanes - 1) / lanes * lanes; }

/// Cuts one thread's working memory, kept between tasks, into arrays of the given sizes.
template <class F, std::size_t N>
std::array<F*, N> carve(std::vector<F>& memory, const std::int64_t (&sizes)[N]) {
  std::int64_t total = 0;
  for (const std::int64_t size : sizes) total += padded(size, 16);
  if (static_cast<std::int64_t>(memory.size()) < total) memory.resize(static_cast<std::size_t>(total));
  std::array<F*, N> arrays;
  F* next = memory.data();
  for (std::size_t i = 0; i < N; ++i) {
    arrays[i] = next;
    next += padded(sizes[i], 16);
  }
  return arrays;
}

/// to[i][0 … dimension) = scale · from[i][…], the padding zero.
template <class D, class T, class F = hn::TFromD<D>>
void pack_rows(D d, const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dimension,
               std::int64_t width, F scale, F* to) {
  const auto factor = hn::Set(d, scale);
  for (std::int64_t i = 0; i < rows; ++i) {
    for_vectors(d, dimension, [&](std::int64_t c, auto part) HWY_ATTR {
      hn::StoreU(hn::Mul(factor, load(d, from + i * stride + c, part)), d, to + i * width + c);
    });
  }
}

/// to[c][i] = from[i][c], rows padded with zeros to `width`.
template <class T, class F>
void pack_transposed(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dimension,
                     std::int64_t width, F* to) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t c = 0; c < dimension; ++c)
      to[c * width + i] = static_cast<F>(to_float(from[i * stride + c]));
  for (std::int64_t c = 0; c < dimension; ++c) std::fill(to + c * width + rows, to + (c + 1) * width, F{0});
}

template <class D, class T, class F = hn::TFromD<D>>
void unpack_rows(D d, const F* from, std::int64_t width, std::int64_t rows, std::int64_t dimension,
                 bool accumulate, T* to, std::int64_t stride) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for_vectors(d, dimension, [&](std::int64_t c, auto part) HWY_ATTR {
      put(d, hn::LoadU(d, from + i * width + c), to + i * stride + c, accumulate, part);
    });
  }
}

/// Replaces scores by exp(score - log_sum) and returns log_sum = log Σ exp(score); the padding becomes zero.
template <class D, class F = hn::TFromD<D>>
F softmax_row(D d, F* row, std::int64_t length, std::int64_t width) {
  const std::int64_t lanes = lanes_of(d);
  for (std::int64_t j = length; j < width; ++j) row[j] = -std::numeric_limits<F>::infinity();
  auto largest = hn::LoadU(d, row);
  for (std::int64_t j = lanes; j < width; j += lanes) largest = hn::Max(largest, hn::LoadU(d, row + j));
  const auto top = hn::MaxOfLanes(d, largest);
  auto sum = hn::Zero(d);
  for (std::int64_t j = 0; j < width; j += lanes) {
    const auto e = exp(d, hn::Sub(hn::LoadU(d, row + j), top));
    hn::StoreU(e, d, row + j);
    sum = hn::Add(sum, e);
  }
  for (std::int64_t j = length; j < width; ++j) row[j] = 0;
  const F total = hn::GetLane(hn::SumOfLanes(d, sum));
  const auto inverse = hn::Set(d, 1 / total);
  for (std::int64_t j = 0; j < width; j += lanes)
    hn::StoreU(hn::Mul(inverse, hn::LoadU(d, row + j)), d, row + j);
  return hn::GetLane(top) + std::log(total);
}

template <class T>
void attention_forward(const HeadTask<T>& t) {
  using F = Lane<T>;
  const hn::ScalableTag<F> d;
  const std::int64_t lanes = lanes_of(d);
  const std::int64_t L = t.length, stride = 3 * t.channels, wide = padded(L, lanes),
                     deep = padded(t.dimension, lanes);
  const std::int64_t block = std::min(L, kQueryRows);
  static thread_local std::vector<F> memory;
  const auto [keys, values, queries, scores, out] =
      carve(memory, {t.dimension * wide, L * deep, block * deep, block * wide, block * deep});

  pack_transposed(t.qkv + t.channels, stride, L, t.dimension, wide, keys);
  pack_rows(d, t.qkv + 2 * t.channels, stride, L, t.dimension, deep, F{1}, values);
  const F scale = 1 / std::sqrt(static_cast<F>(t.dimension));
  for (std::int64_t first = 0; first < L; first += kQueryRows) {
    const std::int64_t rows = std::min(kQueryRows, L - first);
    pack_rows(d, t.qkv + first * stride, stride, rows, t.dimension, deep, scale, queries);
    small_product<false>(d, rows, wide, t.dimension, Strided<F>{queries, deep, 1}, keys, wide, scores, wide);
    for (std::int64_t i = 0; i < rows; ++i) {
      const F log_sum = softmax_row(d, scores + i * wide, L, wide);
      if (t.log_sum != nullptr) t.log_sum[(first + i) * t.heads] = log_sum;
      if (t.weights != nullptr)
        for (std::int64_t j = 0; j < L; ++j)
          t.weights[(first + i) * L + j] = static_cast<float>(scores[i * wide + j]);
    }
    if (t.y == nullptr) continue;
    small_product<false>(d, rows, deep, L, Strided<F>{scores, wide, 1}, values, deep, out, deep);
    unpack_rows(d, out, deep, rows, t.dimension, false, t.y + first * t.channels, t.channels);
  }
}

/// From scores S and dP, row by row: P = exp(S - log_sum) over S, dS = P ∘ (dP - δ) over dP.
template <class D, class F = hn::TFromD<D>>
void softmax_gradient_row(D d, F* scores, F* dscores, F log_sum, F delta, std::int64_t length,
                          std::int64_t width) {
  const std::int64_t lanes = lanes_of(d);
  const auto shift = hn::Set(d, log_sum), mean = hn::Set(d, delta);
  for (std::int64_t j = 0; j < width; j += lanes) {
    const auto p = exp(d, hn::Sub(hn::LoadU(d, scores + j), shift));
    hn::StoreU(p, d, scores + j);
    hn::StoreU(hn::Mul(p, hn::Sub(hn::LoadU(d, dscores + j), mean)), d, dscores + j);
  }
  for (std::int64_t j = length; j < width; ++j) scores[j] = dscores[j] = 0;
}

template <class T>
void attention_backward(const HeadTask<T>& t) {
  using F = Lane<T>;
  const hn::ScalableTag<F> d;
  const std::int64_t lanes = lanes_of(d);
  const std::int64_t L = t.length, stride = 3 * t.channels, wide = padded(L, lanes),
                     deep = padded(t.dimension, lanes);
  const std::int64_t block = std::min(L, kQueryRows);
  static thread_local std::vector<F> memory;
  const auto [keys, keys_t, values_t, dkeys, dvalues, queries, dout, dqueries, scores, dscores] =
      carve(memory, {L * deep, t.dimension * wide, t.dimension * wide, L * deep, L * deep, block * deep,
                     block * deep, block * deep, block * wide, block * wide});

  const F scale = 1 / std::sqrt(static_cast<F>(t.dimension));
  pack_rows(d, t.qkv + t.channels, stride, L, t.dimension, deep, scale, keys);  // dq = dS · (k/√d)
  pack_transposed(t.qkv + t.channels, stride, L, t.dimension, wide, keys_t);
  pack_transposed(t.qkv + 2 * t.channels, stride, L, t.dimension, wide, values_t);
  std::fill(dkeys, dkeys + L * deep, F{0});
  std::fill(dvalues, dvalues + L * deep, F{0});
  for (std::int64_t first = 0; first < L; first += kQueryRows) {
    const std::int64_t rows = std::min(kQueryRows, L - first);
    pack_rows(d, t.qkv + first * stride, stride, rows, t.dimension, deep, scale, queries);
    pack_rows(d, t.dy + first * t.channels, t.channels, rows, t.dimension, deep, F{1}, dout);
    small_product<false>(d, rows, wide, t.dimension, Strided<F>{queries, deep, 1}, keys_t, wide, scores,
                         wide);
    small_product<false>(d, rows, wide, t.dimension, Strided<F>{dout, deep, 1}, values_t, wide, dscores,
                         wide);
    for (std::int64_t i = 0; i < rows; ++i) {
      F delta = 0;
      const T* y = t.y + (first + i) * t.channels;
      for (std::int64_t c = 0; c < t.dimension; ++c)
        delta += dout[i * deep + c] * static_cast<F>(to_float(y[c]));
      softmax_gradient_row(d, scores + i * wide, dscores + i * wide, t.log_sum[(first + i) * t.heads], delta,
                           L, wide);
    }
    small_product<true>(d, L, deep, rows, Strided<F>{scores, 1, wide}, dout, deep, dvalues, deep);
    small_product<true>(d, L, deep, rows, Strided<F>{dscores, 1, wide}, queries, deep, dkeys, deep);
    small_product<false>(d, rows, deep, L, Strided<F>{dscores, wide, 1}, keys, deep, dqueries, deep);
    unpack_rows(d, dqueries, deep, rows, t.dimension, t.accumulate, t.dqkv + first * stride, stride);
  }
  unpack_rows(d, dkeys, deep, L, t.dimension, t.accumulate, t.dqkv + t.channels, stride);
  unpack_rows(d, dvalues, deep, L, t.dimension, t.accumulate, t.dqkv + 2 * t.channels, stride);
}

void attention_forward_f32(const HeadTask<float>& t) { attention_forward(t); }
void attention_forward_bf16(const HeadTask<bf16>& t) { attention_forward(t); }
void attention_forward_f64(const HeadTask<double>& t) { attention_forward(t); }
void attention_backward_f32(const HeadTask<float>& t) { attention_backward(t); }
void attention_backward_bf16(const HeadTask<bf16>& t) { attention_backward(t); }
void attention_backward_f64(const HeadTask<double>& t) { attention_backward(t); }

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(attention_forward_f32);
HWY_EXPORT(attention_forward_bf16);
HWY_EXPORT(attention_forward_f64);
HWY_EXPORT(attention_backward_f32);
HWY_EXPORT(attention_backward_bf16);
HWY_EXPORT(attention_backward_f64);

namespace {

void forward(const HeadTask<float>& t) { HWY_DYNAMIC_DISPATCH(attention_forward_f32)(t); }
void forward(const HeadTask<bf16>& t) { HWY_DYNAMIC_DISPATCH(attention_forward_bf16)(t); }
void forward(const HeadTask<double>& t) { HWY_DYNAMIC_DISPATCH(attention_forward_f64)(t); }
void backward(const HeadTask<float>& t) { HWY_DYNAMIC_DISPATCH(attention_backward_f32)(t); }
void backward(const HeadTask<bf16>& t) { HWY_DYNAMIC_DISPATCH(attention_backward_bf16)(t); }
void backward(const HeadTask<double>& t) { HWY_DYNAMIC_DISPATCH(attention_backward_f64)(t); }

/// Calls body(first row, length, head, sequence) for every head of every sequence, in parallel. Tasks are
/// independent, so any split over threads gives the same bits; long sequences lie in runs, and a dynamic
/// schedule levels them out.
template <class Body>
void for_each_head(const Segments& segments, int heads, const Body& body) {
  std::int64_t first = 0;
  for (const Segment& segment : segments) {
    const std::int64_t tasks = segment.count * heads;
    // Waking the threads costs about as much as 64 tasks of 16 tokens.
    const bool is_large = tasks * segment.length * segment.length > 1 << 14;
#pragma omp parallel for schedule(dynamic, 4) if (is_large)
    for (std::int64_t task = 0; task < tasks; ++task) {
      const std::int64_t sequence = task / heads, head = task % heads;
      body(first + sequence * segment.length, segment.length, head, sequence);
    }
    first += segment.count * segment.length;
  }
}

template <class T>
HeadTask<T> head_task(const Tensor& qkv, int heads, std::int64_t row, std::int64_t length,
                      std::int64_t head) {
  const std::int64_t channels = qkv.channels() / 3, dimension = channels / heads;
  HeadTask<T> task;
  task.qkv = qkv.data<T>() + row * 3 * channels + head * dimension;
  task.length = length;
  task.dimension = dimension;
  task.channels = channels;
  task.heads = heads;
  return task;
}

template <class T>
void run_forward(const AttentionForward& a) {
  using F = typename HeadTask<T>::F;
  for_each_head(a.segments, a.heads,
                [&](std::int64_t row, std::int64_t length, std::int64_t head, std::int64_t) {
                  HeadTask<T> task = head_task<T>(a.qkv, a.heads, row, length, head);
                  task.y = a.y.data<T>() + row * task.channels + head * task.dimension;
                  if (a.log_sum.defined()) task.log_sum = a.log_sum.data<F>() + row * a.heads + head;
                  forward(task);
                });
}

template <class T>
void run_backward(const AttentionBackward& a) {
  using F = typename HeadTask<T>::F;
  for_each_head(a.segments, a.heads,
                [&](std::int64_t row, std::int64_t length, std::int64_t head, std::int64_t) {
                  HeadTask<T> task = head_task<T>(a.qkv, a.heads, row, length, head);
                  const std::int64_t at = row * task.channels + head * task.dimension;
                  task.y = a.y.data<T>() + at;
                  task.dy = a.dy.data<T>() + at;
                  task.log_sum = a.log_sum.data<F>() + row * a.heads + head;
                  task.dqkv = a.dqkv.tensor.data<T>() + row * 3 * task.channels + head * task.dimension;
                  task.accumulate = a.dqkv.accumulate;
                  backward(task);
                });
}

class CpuAttention final : public AttentionKernels {
 public:
  void attention(const AttentionForward& a) const override {
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) { run_forward<T>(a); });
  }
  void attention(const AttentionBackward& a) const override {
    if (!a.dqkv) return;
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) { run_backward<T>(a); });
  }
  void weights(const AttentionWeights& a) const override {
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) {
      for_each_head({a.segment}, a.heads,
                    [&](std::int64_t row, std::int64_t length, std::int64_t head, std::int64_t sequence) {
                      HeadTask<T> task = head_task<T>(a.qkv, a.heads, row, length, head);
                      task.weights = a.weights.data<float>() + (sequence * a.heads + head) * length * length;
                      forward(task);
                    });
    });
  }
};

}  // namespace

std::unique_ptr<AttentionKernels> make_attention(Memory& /*memory*/) {
  return std::make_unique<CpuAttention>();
}

}  // namespace bireme::cpu
#endif
