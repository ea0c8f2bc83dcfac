// Rows of a matrix brought into working memory for small_products-inl.h, and back. Included once for each
// instruction set (Highway), hence the guard that toggles instead of #pragma once.
#if defined(BIREME_CORE_CPU_PANELS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_CPU_PANELS_INL_H
#undef BIREME_CORE_CPU_PANELS_INL_H
#else
#define BIREME_CORE_CPU_PANELS_INL_H
#endif

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

/// Panels have rows of a multiple of 16 numbers, which every vector width divides: products need no tails.
constexpr std::int64_t kPanelMultiple = 16;

inline std::int64_t panel_width(std::int64_t count) {
  return (count + kPanelMultiple - 1) / kPanelMultiple * kPanelMultiple;
}

/// Cuts one thread's working memory, kept between calls, into panels of the given sizes, each at a cache
/// line.
template <class F, std::size_t N>
std::array<F*, N> carve_panels(std::vector<F>& memory, const std::int64_t (&sizes)[N]) {
  constexpr std::int64_t kLine = 64 / sizeof(F);
  const auto rounded = [](std::int64_t size) { return (size + kLine - 1) / kLine * kLine; };
  std::int64_t total = kLine;
  for (const std::int64_t size : sizes) total += rounded(size);
  if (static_cast<std::int64_t>(memory.size()) < total) memory.resize(static_cast<std::size_t>(total));
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  F* next = memory.data() + (64 - address % 64) % 64 / sizeof(F);
  std::array<F*, N> panels;
  for (std::size_t i = 0; i < N; ++i) {
    panels[i] = next;
    next += rounded(sizes[i]);
  }
  return panels;
}

/// panel[r][c] = scale · from[r][c] for c < count, and 0 up to `width`.
template <class D, class T, class F = hn::TFromD<D>>
void gather_rows(D d, const T* from, std::int64_t stride, std::int64_t rows, std::int64_t count, F scale,
                 F* panel, std::int64_t width) {
  const auto factor = hn::Set(d, scale);
  for (std::int64_t r = 0; r < rows; ++r) {
    F* to = panel + r * width;
    for_vectors(d, count, [&](std::int64_t c, auto part) HWY_ATTR {
      hn::StoreU(hn::Mul(factor, load(d, from + r * stride + c, part)), d, to + c);
    });
    const std::int64_t written = (count + lanes_of(d) - 1) / lanes_of(d) * lanes_of(d);
    std::fill(to + std::min(written, width), to + width, F{0});
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

/// panel[c][r] = from[r][c]; columns from `rows` on are left as they are.
template <class T, class F>
void transpose(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t count, F* panel,
               std::int64_t width) {
  std::int64_t whole_rows = 0, whole_columns = 0;
  if constexpr (std::is_same_v<F, float>) {
    const hn::FixedTag<float, 4> d;
    whole_rows = rows / 4 * 4;
    whole_columns = count / 4 * 4;
    for (std::int64_t r = 0; r < whole_rows; r += 4)
      for (std::int64_t c = 0; c < whole_columns; c += 4) {
        const T* corner = from + r * stride + c;
        store_transposed(d, load(d, corner), load(d, corner + stride), load(d, corner + 2 * stride),
                         load(d, corner + 3 * stride), panel + c * width + r, width);
      }
  }
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = r < whole_rows ? whole_columns : 0; c < count; ++c)
      panel[c * width + r] = static_cast<F>(to_float(from[r * stride + c]));
}

/// The same, rows of the panel padded with 0 to `width`.
template <class T, class F>
void gather_transposed(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t count, F* panel,
                       std::int64_t width) {
  transpose(from, stride, rows, count, panel, width);
  for (std::int64_t c = 0; c < count; ++c) std::fill(panel + c * width + rows, panel + (c + 1) * width, F{0});
}

/// Sum over c of a[c] · b[c], both padded with 0 to `width`.
template <class D, class F = hn::TFromD<D>>
F panel_dot(D d, const F* a, const F* b, std::int64_t width) {
  auto total = hn::Zero(d);
  for (std::int64_t c = 0; c < width; c += lanes_of(d))
    total = hn::MulAdd(hn::LoadU(d, a + c), hn::LoadU(d, b + c), total);
  return sum(d, total);
}

/// to[c] += factor · from[c].
template <class D, class F = hn::TFromD<D>>
void add_scaled(D d, F factor, const F* from, F* to, std::int64_t width) {
  const auto scale = hn::Set(d, factor);
  for (std::int64_t c = 0; c < width; c += lanes_of(d))
    hn::StoreU(hn::MulAdd(scale, hn::LoadU(d, from + c), hn::LoadU(d, to + c)), d, to + c);
}

/// to[c] = factor · from[c].
template <class D, class F = hn::TFromD<D>>
void set_scaled(D d, F factor, const F* from, F* to, std::int64_t width) {
  const auto scale = hn::Set(d, factor);
  for (std::int64_t c = 0; c < width; c += lanes_of(d))
    hn::StoreU(hn::Mul(scale, hn::LoadU(d, from + c)), d, to + c);
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
