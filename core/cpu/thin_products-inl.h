// Products of few rows, as in decoding: time is what reading the weights takes. Included once for each
// instruction set (Highway), hence the guard that toggles instead of #pragma once.
#if defined(BIREME_CORE_CPU_THIN_PRODUCTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_CPU_THIN_PRODUCTS_INL_H
#undef BIREME_CORE_CPU_THIN_PRODUCTS_INL_H
#else
#define BIREME_CORE_CPU_THIN_PRODUCTS_INL_H
#endif

#include <hwy/cache_control.h>

#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

constexpr std::int64_t kThinRows = 8;  ///< the most rows

/// y = x · Wᵀ (+ b) for few rows; every number of W is read once.
struct ThinProduct {
  std::int64_t rows = 0, in = 0, out = 0;
};

/// Outputs [first, first + Outputs) of Rows rows: all sums stay in registers while W's rows go by.
template <int Rows, int Outputs, class T, class Y>
HWY_INLINE void thin_tile(const float* x, const T* weight, const float* bias, Y* y, std::int64_t in,
                          std::int64_t out) {
  const Lanes<float> d;
  using V = hn::Vec<Lanes<float>>;
  V sums[Rows][Outputs];
  for (auto& row : sums)
    for (V& entry : row) entry = hn::Zero(d);
  // The same place of the next tile, where rows are too short for the processor to see their pattern in time:
  // 15 to 40 % more from memory; one long row is better left alone.
  const bool prefetches = Rows > 1 || in * std::int64_t{sizeof(T)} <= 2048;
  for_vectors(d, in, [&](std::int64_t c, auto part) HWY_ATTR {
    V w[Outputs];
    for (int o = 0; o < Outputs; ++o) {
      w[o] = load(d, weight + o * in + c, part);
      if (prefetches) hwy::Prefetch(weight + (o + Outputs) * in + c);
    }
    for (int r = 0; r < Rows; ++r) {
      const auto v = load(d, x + r * in + c, part);
      for (int o = 0; o < Outputs; ++o) sums[r][o] = hn::MulAdd(v, w[o], sums[r][o]);
    }
  });
  for (int r = 0; r < Rows; ++r) {
    for (int o = 0; o < Outputs; ++o) {
      const float value = sum(d, sums[r][o]) + (bias != nullptr ? bias[o] : 0.0F);
      if constexpr (std::is_same_v<Y, bf16>) {
        y[r * out + o] = to_bf16(value);
      } else {
        y[r * out + o] = value;
      }
    }
  }
}

template <int Rows, class T, class Y>
void thin_rows(const ThinProduct& p, const float* x, const T* weight, const float* bias, Y* y) {
  // Enough sums in flight to hide the latency of a multiply-add, and no more than there are registers.
  constexpr int kOutputs = Rows == 1 ? 8 : Rows <= 4 ? 4 : 2;
  const auto run = [&](std::int64_t begin, std::int64_t end) {
    const auto bias_at = [bias](std::int64_t o) { return bias != nullptr ? bias + o : nullptr; };
    std::int64_t o = begin;
    for (; o + kOutputs <= end; o += kOutputs)
      thin_tile<Rows, kOutputs>(x, weight + o * p.in, bias_at(o), y + o, p.in, p.out);
    for (; o < end; ++o) thin_tile<Rows, 1>(x, weight + o * p.in, bias_at(o), y + o, p.in, p.out);
  };
  // Read in 5 µs by one thread; to wake and join others costs about half of that on an idle machine, and far
  // more where something else runs.
  constexpr std::int64_t kForOneThread = 256 << 10;
  const std::int64_t bytes_of_row = p.in * std::int64_t{sizeof(T)};
  if (p.out * bytes_of_row <= kForOneThread) {
    run(0, p.out);
  } else {
    parallel_rows(p.out, bytes_of_row, run);
  }
}

/// Sums are in fp32, each in one order whatever the number of rows and threads.
/// @param x       [rows, in], fp32 or bf16, as weight [out, in]
/// @param bias    fp32 [out], or null
/// @param y       [rows, out], fp32 or bf16
template <class T, class Y>
void thin_product(const ThinProduct& p, const T* x, const T* weight, const float* bias, Y* y) {
  static thread_local std::vector<float> widened;
  const float* rows = nullptr;
  if constexpr (std::is_same_v<T, bf16>) {
    widened.resize(static_cast<std::size_t>(p.rows * p.in));
    for (std::size_t i = 0; i < widened.size(); ++i) widened[i] = to_float(x[i]);
    rows = widened.data();
  } else {
    rows = x;
  }
  switch (p.rows) {
    case 0: return;  // nothing to read
    case 1: thin_rows<1>(p, rows, weight, bias, y); return;
    case 2: thin_rows<2>(p, rows, weight, bias, y); return;
    case 3: thin_rows<3>(p, rows, weight, bias, y); return;
    case 4: thin_rows<4>(p, rows, weight, bias, y); return;
    case 5: thin_rows<5>(p, rows, weight, bias, y); return;
    case 6: thin_rows<6>(p, rows, weight, bias, y); return;
    case 7: thin_rows<7>(p, rows, weight, bias, y); return;
    default: thin_rows<8>(p, rows, weight, bias, y); return;
  }
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
