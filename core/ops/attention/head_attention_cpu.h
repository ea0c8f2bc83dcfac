// Attention without a mask for one head of one sequence, for dense_attention_cpu.h. Included once for each
// instruction set, see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_ATTENTION_HEAD_ATTENTION_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_ATTENTION_HEAD_ATTENTION_CPU_H_
#undef BIREME_CORE_OPS_ATTENTION_HEAD_ATTENTION_CPU_H_
#else
#define BIREME_CORE_OPS_ATTENTION_HEAD_ATTENTION_CPU_H_
#endif

#include <algorithm>
#include <limits>
#include <vector>

#include "core/cpu/simd.h"
#include "core/cpu/small_products-inl.h"
#include "core/ops/attention/attention_kernels.h"
#include "core/ops/attention/packing_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

// Queries are taken this many at a time, so that their rows of scores stay in the second-level cache for
// sequences of thousands of tokens.
constexpr std::int64_t kQueryRows = 64;

/// One head of one sequence. Pointers are at its first row; strides in elements.
template <class T>
struct HeadTask {
  using F = Lane<T>;
  const T* qkv = nullptr;  // q at 0, k at `channels`, v at 2·channels
  T* y = nullptr;
  F* log_sum = nullptr;  // stride `heads`; or null
  const T* dy = nullptr;
  T* dqkv = nullptr;
  bool accumulate = false;
  float* weights = nullptr;  // [length, length], or null
  std::int64_t length = 0, dimension = 0, channels = 0, heads = 0;
};

/// Replaces scores by exp(scale · score - log_sum) and returns log_sum = log Σ exp(scale · score); the
/// padding becomes zero.
template <class D, class F = hn::TFromD<D>>
F softmax_row(D d, F* row, F scale, std::int64_t length, std::int64_t width) {
  const std::int64_t lanes = lanes_of(d);
  for (std::int64_t j = length; j < width; ++j) row[j] = -std::numeric_limits<F>::infinity();
  auto largest = hn::LoadU(d, row);
  for (std::int64_t j = lanes; j < width; j += lanes) largest = hn::Max(largest, hn::LoadU(d, row + j));
  const auto factor = hn::Set(d, scale), top = hn::Mul(factor, hn::MaxOfLanes(d, largest));
  auto sum = hn::Zero(d);
  for (std::int64_t j = 0; j < width; j += lanes) {
    const auto e = exp(d, hn::MulSub(factor, hn::LoadU(d, row + j), top));
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
  const Lanes<T> d;
  const std::int64_t lanes = lanes_of(d);
  const std::int64_t L = t.length, stride = 3 * t.channels, wide = padded(L, lanes),
                     deep = padded(t.dimension, lanes);
  const std::int64_t block = std::min(L, kQueryRows);
  static thread_local std::vector<F> memory;
  const auto [keys, values, queries, scores, out] =
      carve_panels(memory, {t.dimension * wide, L * deep, block * deep, block * wide, block * deep});

  gather_transposed(t.qkv + t.channels, stride, L, t.dimension, keys, wide);
  gather_rows(d, t.qkv + 2 * t.channels, stride, L, t.dimension, F{1}, values, deep);
  const F scale = 1 / std::sqrt(static_cast<F>(t.dimension));
  for (std::int64_t first = 0; first < L; first += kQueryRows) {
    const std::int64_t rows = std::min(kQueryRows, L - first);
    gather_rows(d, t.qkv + first * stride, stride, rows, t.dimension, scale, queries, deep);
    small_product<false>(d, rows, wide, t.dimension, Strided<F>{queries, deep, 1}, keys, wide, scores, wide);
    for (std::int64_t i = 0; i < rows; ++i) {
      const F log_sum = softmax_row(d, scores + i * wide, F{1}, L, wide);
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
  const Lanes<T> d;
  const std::int64_t lanes = lanes_of(d);
  const std::int64_t L = t.length, stride = 3 * t.channels, wide = padded(L, lanes),
                     deep = padded(t.dimension, lanes);
  const std::int64_t block = std::min(L, kQueryRows);
  static thread_local std::vector<F> memory;
  const auto [keys, keys_t, values_t, dkeys, dvalues, queries, dout, dqueries, scores, dscores] =
      carve_panels(memory, {L * deep, t.dimension * wide, t.dimension * wide, L * deep, L * deep,
                            block * deep, block * deep, block * deep, block * wide, block * wide});

  const F scale = 1 / std::sqrt(static_cast<F>(t.dimension));
  gather_rows(d, t.qkv + t.channels, stride, L, t.dimension, scale, keys, deep);  // dq = dS · (k/√d)
  gather_transposed(t.qkv + t.channels, stride, L, t.dimension, keys_t, wide);
  gather_transposed(t.qkv + 2 * t.channels, stride, L, t.dimension, values_t, wide);
  std::fill(dkeys, dkeys + L * deep, F{0});
  std::fill(dvalues, dvalues + L * deep, F{0});
  for (std::int64_t first = 0; first < L; first += kQueryRows) {
    const std::int64_t rows = std::min(kQueryRows, L - first);
    gather_rows(d, t.qkv + first * stride, stride, rows, t.dimension, scale, queries, deep);
    gather_rows(d, t.dy + first * t.channels, t.channels, rows, t.dimension, F{1}, dout, deep);
    small_product<false>(d, rows, wide, t.dimension, Strided<F>{queries, deep, 1}, keys_t, wide, scores,
                         wide);
    small_product<false>(d, rows, wide, t.dimension, Strided<F>{dout, deep, 1}, values_t, wide, dscores,
                         wide);
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* y = t.y + (first + i) * t.channels;
      const F delta = dot(dout + i * deep, y, t.dimension);
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

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
