// Attention without a mask in bf16 where the CPU multiplies pairs of bf16 numbers (AVX512-BF16), for
// attention_cpu.cpp. Included once for each instruction set, see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_ATTENTION_PAIRED_ATTENTION_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_ATTENTION_PAIRED_ATTENTION_CPU_H_
#undef BIREME_CORE_OPS_ATTENTION_PAIRED_ATTENTION_CPU_H_
#else
#define BIREME_CORE_OPS_ATTENTION_PAIRED_ATTENTION_CPU_H_
#endif

#include "core/cpu/features.h"
#include "core/ops/attention/head_attention_cpu.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

// Products run over pairs (small_products-inl.h): queries, keys, values and their gradients as they are, the
// weights P and dS rounded to bf16; sums and the softmax are fp32. The scale 1/√d is applied to sums, where
// it costs no rounding.

using PairLanes = hn::Rebind<Bf16Pair, Lanes<bf16>>;

/// Rows that lie next to each other as pairs need no packing.
inline const Bf16Pair* as_pairs(const bf16* row) { return reinterpret_cast<const Bf16Pair*>(row); }

/// Rounds to nearest, ties to even; denormal numbers become 0.
inline __m256i round_to_bf16(hn::Vec<Lanes<bf16>> v) {
  __m256i bits;
  asm("vcvtneps2bf16 %1, %0" : "=v"(bits) : "v"(v.raw));
  return bits;
}
inline void store_rounded(__m256i bits, bf16* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
}

inline hn::Vec<PairLanes> widen(__m256i bits) { return hn::Vec<PairLanes>{_mm512_cvtepu16_epi32(bits)}; }

inline hn::Vec<PairLanes> pair_up(hn::Vec<PairLanes> first, hn::Vec<PairLanes> second) {
  return hn::Or(first, hn::ShiftLeft<16>(second));
}

/// to[i][c] = {from[2i][c], from[2i + 1][c]}; the padding, and what pairs with an odd last row, is zero.
inline void pack_row_pairs(const bf16* from, std::int64_t stride, std::int64_t rows, std::int64_t dimension,
                           std::int64_t width, Bf16Pair* to) {
  const PairLanes d;
  const hn::Rebind<std::uint16_t, PairLanes> d16;
  const auto read = [&](const bf16* at, std::int64_t count) HWY_ATTR {
    if (count >= lanes_of(d)) return hn::PromoteTo(d, hn::LoadU(d16, &at->bits));
    std::uint16_t part[hn::MaxLanes(d16)] = {};
    std::memcpy(part, at, static_cast<std::size_t>(count) * sizeof(bf16));
    return hn::PromoteTo(d, hn::LoadU(d16, part));
  };
  for (std::int64_t i = 0; i < rows; i += 2) {
    for (std::int64_t c = 0; c < width; c += lanes_of(d)) {
      const bf16* at = from + i * stride + c;
      const auto second = i + 1 < rows ? read(at + stride, dimension - c) : hn::Zero(d);
      hn::StoreU(pair_up(read(at, dimension - c), second), d, to + i / 2 * width + c);
    }
  }
}

/// to[c][i] = {from[i][2c], from[i][2c + 1]}, rows padded with zeros.
inline void pack_transposed_pairs(const bf16* from, std::int64_t stride, std::int64_t rows,
                                  std::int64_t dimension, std::int64_t width, Bf16Pair* to) {
  const hn::FixedTag<Bf16Pair, 4> d;
  const std::int64_t pairs = dimension / 2, tiled_rows = rows / 4 * 4, tiled = pairs / 4 * 4;
  const auto read = [&](const bf16* at) HWY_ATTR { return hn::LoadU(d, as_pairs(at)); };
  for (std::int64_t i = 0; i < tiled_rows; i += 4) {
    for (std::int64_t c = 0; c < tiled; c += 4) {
      const bf16* tile = from + i * stride + 2 * c;
      store_transposed(d, read(tile), read(tile + stride), read(tile + 2 * stride), read(tile + 3 * stride),
                       to + c * width + i, width);
    }
  }
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t c = i < tiled_rows ? tiled : 0; c < pairs; ++c)
      std::memcpy(to + c * width + i, from + i * stride + 2 * c, sizeof(Bf16Pair));
  for (std::int64_t c = 0; c < pairs; ++c) std::fill(to + c * width + rows, to + (c + 1) * width, 0U);
}

/// Whether a head can run over pairs: its numbers of channels and the strides to the next row are even.
inline bool runs_over_pairs(const HeadTask<bf16>& t) {
  static const bool has_instructions = has_bf16_instructions();
  return has_instructions && t.dimension % 2 == 0 && t.channels % 2 == 0 && t.weights == nullptr;
}

inline void paired_attention_forward(const HeadTask<bf16>& t) {
  const Lanes<bf16> d;
  const std::int64_t lanes = lanes_of(d), L = t.length, pairs = (L + 1) / 2, stride = 3 * t.channels,
                     wide = padded(L, lanes), deep = padded(t.dimension, lanes),
                     block = std::min(L, kQueryRows);
  static thread_local std::vector<float> memory;
  static thread_local std::vector<Bf16Pair> pair_memory;
  static thread_local std::vector<bf16> weight_memory;
  const auto [scores, out] = carve_panels(memory, {block * wide, block * deep});
  const auto [keys, values] = carve_panels(pair_memory, {t.dimension / 2 * wide, pairs * deep});
  const auto [weights] = carve_panels(weight_memory, {block * wide});

  pack_transposed_pairs(t.qkv + t.channels, stride, L, t.dimension, wide, keys);
  pack_row_pairs(t.qkv + 2 * t.channels, stride, L, t.dimension, deep, values);
  const float scale = 1 / std::sqrt(static_cast<float>(t.dimension));
  for (std::int64_t first = 0; first < L; first += kQueryRows) {
    const std::int64_t rows = std::min(kQueryRows, L - first);
    const Strided<Bf16Pair> queries{as_pairs(t.qkv + first * stride), stride / 2, 1};
    small_product<false>(d, rows, wide, t.dimension / 2, queries, keys, wide, scores, wide);
    for (std::int64_t i = 0; i < rows; ++i) {
      const float log_sum = softmax_row(d, scores + i * wide, scale, L, wide);
      if (t.log_sum != nullptr) t.log_sum[(first + i) * t.heads] = log_sum;
      for (std::int64_t j = i * wide; j < (i + 1) * wide; j += lanes)
        store_rounded(round_to_bf16(hn::LoadU(d, scores + j)), weights + j);
    }
    small_product<false>(d, rows, deep, pairs, Strided<Bf16Pair>{as_pairs(weights), wide / 2, 1}, values,
                         deep, out, deep);
    unpack_rows(d, out, deep, rows, t.dimension, false, t.y + first * t.channels, t.channels);
  }
}

/// What a row's gradient needs besides the scores: P = exp(scale · S - log_sum), dS = scale · P ∘ (dP - δ).
struct SoftmaxRow {
  const float *scores, *dscores;
  float log_sum, delta;
};

struct WeightsAndGradients {
  __m256i p, ds;
};

inline WeightsAndGradients softmax_gradient(const SoftmaxRow& row, std::int64_t j, float scale) {
  const Lanes<bf16> d;
  const auto factor = hn::Set(d, scale);
  const auto p = exp(d, hn::MulSub(factor, hn::LoadU(d, row.scores + j), hn::Set(d, row.log_sum)));
  const auto dp = hn::Sub(hn::LoadU(d, row.dscores + j), hn::Set(d, row.delta));
  return {round_to_bf16(p), round_to_bf16(hn::Mul(hn::Mul(factor, p), dp))};
}

inline void paired_attention_backward(const HeadTask<bf16>& t) {
  const Lanes<bf16> d;
  const PairLanes d32;
  const std::int64_t lanes = lanes_of(d), L = t.length, pairs = (L + 1) / 2, stride = 3 * t.channels,
                     wide = padded(L, lanes), deep = padded(t.dimension, lanes),
                     block = std::min(L, kQueryRows), block_pairs = (block + 1) / 2;
  static thread_local std::vector<float> memory;
  static thread_local std::vector<Bf16Pair> pair_memory;
  static thread_local std::vector<bf16> row_memory;
  const auto [dkeys, dvalues, dqueries, scores, dscores] =
      carve_panels(memory, {L * deep, L * deep, block * deep, block * wide, block * wide});
  const auto [keys, keys_t, values_t, queries, dout, p_pairs, ds_pairs] = carve_panels(
      pair_memory, {pairs * deep, t.dimension / 2 * wide, t.dimension / 2 * wide, block_pairs * deep,
                    block_pairs * deep, block_pairs * wide, block_pairs * wide});
  const auto [ds_rows] = carve_panels(row_memory, {(block + 1) * wide});

  const float scale = 1 / std::sqrt(static_cast<float>(t.dimension));
  pack_row_pairs(t.qkv + t.channels, stride, L, t.dimension, deep, keys);
  pack_transposed_pairs(t.qkv + t.channels, stride, L, t.dimension, wide, keys_t);
  pack_transposed_pairs(t.qkv + 2 * t.channels, stride, L, t.dimension, wide, values_t);
  std::fill(dkeys, dkeys + L * deep, 0.0F);
  std::fill(dvalues, dvalues + L * deep, 0.0F);
  for (std::int64_t first = 0; first < L; first += kQueryRows) {
    const std::int64_t rows = std::min(kQueryRows, L - first), row_pairs = (rows + 1) / 2;
    const bf16 *q = t.qkv + first * stride, *dy = t.dy + first * t.channels, *y = t.y + first * t.channels;
    pack_row_pairs(q, stride, rows, t.dimension, deep, queries);
    pack_row_pairs(dy, t.channels, rows, t.dimension, deep, dout);
    small_product<false>(d, rows, wide, t.dimension / 2, Strided<Bf16Pair>{as_pairs(q), stride / 2, 1},
                         keys_t, wide, scores, wide);
    small_product<false>(d, rows, wide, t.dimension / 2, Strided<Bf16Pair>{as_pairs(dy), t.channels / 2, 1},
                         values_t, wide, dscores, wide);
    const auto row = [&](std::int64_t i) HWY_ATTR {
      return SoftmaxRow{scores + i * wide, dscores + i * wide, t.log_sum[(first + i) * t.heads],
                        dot(dy + i * t.channels, y + i * t.channels, t.dimension)};
    };
    for (std::int64_t i = 0; i < rows; i += 2) {
      // An odd last row pairs with itself, against rows of zeros.
      const SoftmaxRow one = row(i), two = row(std::min(i + 1, rows - 1));
      for (std::int64_t j = 0; j < wide; j += lanes) {
        const WeightsAndGradients a = softmax_gradient(one, j, scale), b = softmax_gradient(two, j, scale);
        hn::StoreU(pair_up(widen(a.p), widen(b.p)), d32, p_pairs + i / 2 * wide + j);
        hn::StoreU(pair_up(widen(a.ds), widen(b.ds)), d32, ds_pairs + i / 2 * wide + j);
        store_rounded(a.ds, ds_rows + i * wide + j);
        store_rounded(b.ds, ds_rows + (i + 1) * wide + j);
      }
      // What meets the zeros beside an odd last key must be finite.
      if (L % 2 != 0) ds_rows[i * wide + L] = ds_rows[(i + 1) * wide + L] = bf16{0};
    }
    small_product<true>(d, L, deep, row_pairs, Strided<Bf16Pair>{p_pairs, 1, wide}, dout, deep, dvalues,
                        deep);
    small_product<true>(d, L, deep, row_pairs, Strided<Bf16Pair>{ds_pairs, 1, wide}, queries, deep, dkeys,
                        deep);
    small_product<false>(d, rows, deep, pairs, Strided<Bf16Pair>{as_pairs(ds_rows), wide / 2, 1}, keys, deep,
                         dqueries, deep);
    unpack_rows(d, dqueries, deep, rows, t.dimension, t.accumulate, t.dqkv + first * stride, stride);
  }
  unpack_rows(d, dkeys, deep, L, t.dimension, t.accumulate, t.dqkv + t.channels, stride);
  unpack_rows(d, dvalues, deep, L, t.dimension, t.accumulate, t.dqkv + 2 * t.channels, stride);
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET

#endif  // include guard for each instruction set
