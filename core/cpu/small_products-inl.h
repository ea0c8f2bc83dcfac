// Matrix products that fit into a core's caches, for one thread. Included once for each instruction set
// (Highway), hence the guard that toggles instead of #pragma once.
#if defined(BIREME_CORE_CPU_SMALL_PRODUCTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_CPU_SMALL_PRODUCTS_INL_H
#undef BIREME_CORE_CPU_SMALL_PRODUCTS_INL_H
#else
#define BIREME_CORE_CPU_SMALL_PRODUCTS_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// A read in any order: element (i, k) lies at data[i · row + k · column], so a transposed A costs nothing.
template <class F>
struct Strided {
  const F* data;
  std::int64_t row, column;
};

/// What a lane of A and B can be: a number of C's type, or two bf16 numbers, next to each other in depth.
using Bf16Pair = std::uint32_t;  // the first in the lower half

template <class D>
HWY_INLINE hn::Vec<D> multiply_add(D, hn::Vec<D> x, hn::Vec<D> y, hn::Vec<D> sum) {
  return hn::MulAdd(x, y, sum);
}

#if HWY_TARGET == HWY_AVX3
/// Needs has_bf16_instructions(). Highway 1.0 has no tag for them, and intrinsics would want a target of
/// their own for every function up to the caller.
template <class D>
HWY_INLINE hn::Vec<D> multiply_add(D, hn::Vec<hn::Rebind<Bf16Pair, D>> x, hn::Vec<hn::Rebind<Bf16Pair, D>> y,
                                   hn::Vec<D> sum) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(x.raw), "v"(y.raw));
  return sum;
}
#endif

/// Rows × Vectors accumulators stay in registers while k runs: 6 × 4 of AVX-512's 32, 6 × 2 of AVX2's 16.
template <int Rows, int Vectors, bool Accumulate, class D, class E, class F = hn::TFromD<D>>
HWY_INLINE void product_tile(D d, std::int64_t depth, Strided<E> a, const E* HWY_RESTRICT b,
                             std::int64_t b_stride, F* HWY_RESTRICT c, std::int64_t c_stride) {
  const hn::Rebind<E, D> e;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  hn::Vec<D> sum[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j)
      sum[i][j] = Accumulate ? hn::LoadU(d, c + i * c_stride + j * lanes) : hn::Zero(d);
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    hn::Vec<decltype(e)> column[Vectors];
    for (int j = 0; j < Vectors; ++j) column[j] = hn::LoadU(e, b + k * b_stride + j * lanes);
    for (int i = 0; i < Rows; ++i) {
      const auto x = hn::Set(e, a.data[i * a.row + k * a.column]);
      for (int j = 0; j < Vectors; ++j) sum[i][j] = multiply_add(d, x, column[j], sum[i][j]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) hn::StoreU(sum[i][j], d, c + i * c_stride + j * lanes);
  }
}

template <int Vectors, bool Accumulate, class D, class E, class F = hn::TFromD<D>>
HWY_INLINE void product_columns(D d, std::int64_t rows, std::int64_t depth, Strided<E> a, const E* b,
                                std::int64_t b_stride, F* c, std::int64_t c_stride) {
  std::int64_t i = 0;
  const auto at = [&](std::int64_t row) { return Strided<E>{a.data + row * a.row, a.row, a.column}; };
  for (; i + 6 <= rows; i += 6)
    product_tile<6, Vectors, Accumulate>(d, depth, at(i), b, b_stride, c + i * c_stride, c_stride);
  for (; i + 2 <= rows; i += 2)
    product_tile<2, Vectors, Accumulate>(d, depth, at(i), b, b_stride, c + i * c_stride, c_stride);
  if (i < rows)
    product_tile<1, Vectors, Accumulate>(d, depth, at(i), b, b_stride, c + i * c_stride, c_stride);
}

/// C [rows, columns] = (C +) A [rows, depth] · B [depth, columns]. Rows of B and C are padded: `columns` is a
/// multiple of the number of lanes. The depth of pairs counts pairs.
template <bool Accumulate, class D, class E, class F = hn::TFromD<D>>
void small_product(D d, std::int64_t rows, std::int64_t columns, std::int64_t depth, Strided<E> a, const E* b,
                   std::int64_t b_stride, F* c, std::int64_t c_stride) {
  constexpr int kWidest = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t vectors = columns / lanes;
  // Five vectors run as 3 + 2 rather than 4 + 1: a narrow tile waits for its loads.
  for (std::int64_t j = 0; vectors > 0;) {
    const std::int64_t tiles = (vectors + kWidest - 1) / kWidest, width = (vectors + tiles - 1) / tiles;
    switch (width) {
      case 4: product_columns<4, Accumulate>(d, rows, depth, a, b + j, b_stride, c + j, c_stride); break;
      case 3: product_columns<3, Accumulate>(d, rows, depth, a, b + j, b_stride, c + j, c_stride); break;
      case 2: product_columns<2, Accumulate>(d, rows, depth, a, b + j, b_stride, c + j, c_stride); break;
      default: product_columns<1, Accumulate>(d, rows, depth, a, b + j, b_stride, c + j, c_stride); break;
    }
    j += width * lanes;
    vectors -= width;
  }
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
