// Heads as padded arrays in a thread's own memory, for attention_cpu.cpp. Included once for each instruction
// set, see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_ATTENTION_PACKING_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_ATTENTION_PACKING_CPU_H_
#undef BIREME_CORE_OPS_ATTENTION_PACKING_CPU_H_
#else
#define BIREME_CORE_OPS_ATTENTION_PACKING_CPU_H_
#endif

#include <algorithm>
#include <array>
#include <type_traits>
#include <vector>

#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

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

/// Writes four rows of four lanes as columns, rows of `to` being `width` apart.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store_transposed(D d, V row0, V row1, V row2, V row3, hn::TFromD<D>* to, std::int64_t width) {
  const auto low01 = hn::InterleaveLower(d, row0, row1), high01 = hn::InterleaveUpper(d, row0, row1);
  const auto low23 = hn::InterleaveLower(d, row2, row3), high23 = hn::InterleaveUpper(d, row2, row3);
  hn::StoreU(hn::ConcatLowerLower(d, low23, low01), d, to);
  hn::StoreU(hn::ConcatUpperUpper(d, low23, low01), d, to + width);
  hn::StoreU(hn::ConcatLowerLower(d, high23, high01), d, to + 2 * width);
  hn::StoreU(hn::ConcatUpperUpper(d, high23, high01), d, to + 3 * width);
}

/// to[c][i] = from[i][c], rows of `to` being `width` apart.
template <class T, class F>
void transpose(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dimension,
               std::int64_t width, F* to) {
  std::int64_t tiled_rows = 0, tiled = 0;
  if constexpr (std::is_same_v<F, float>) {
    tiled_rows = rows / 4 * 4;
    tiled = dimension / 4 * 4;
    const hn::FixedTag<float, 4> d;
    for (std::int64_t i = 0; i < tiled_rows; i += 4) {
      for (std::int64_t c = 0; c < tiled; c += 4) {
        const T* tile = from + i * stride + c;
        store_transposed(d, load(d, tile), load(d, tile + stride), load(d, tile + 2 * stride),
                         load(d, tile + 3 * stride), to + c * width + i, width);
      }
    }
  }
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t c = i < tiled_rows ? tiled : 0; c < dimension; ++c)
      to[c * width + i] = static_cast<F>(to_float(from[i * stride + c]));
}

/// The same, rows padded with zeros to `width`.
template <class T, class F>
void pack_transposed(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dimension,
                     std::int64_t width, F* to) {
  transpose(from, stride, rows, dimension, width, to);
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

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
