// Attention of new tokens over a cache of keys and values on the CPU, for attention_cpu.cpp. Included once
// for each instruction set, see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_ATTENTION_CACHED_ATTENTION_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_ATTENTION_CACHED_ATTENTION_CPU_H_
#undef BIREME_CORE_OPS_ATTENTION_CACHED_ATTENTION_CPU_H_
#else
#define BIREME_CORE_OPS_ATTENTION_CACHED_ATTENTION_CPU_H_
#endif

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/attention/attention_kernels.h"
#include "core/ops/attention/causal_attention_cpu.h"
#include "core/ops/attention/packing_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

// Up to this many new tokens, keys and values are read once, as they lie in the cache; more are worth
// packing.
constexpr std::int64_t kFewTokens = 8;
// Columns that one task takes: 64 KiB of keys and values at d = 64 in fp32.
constexpr std::int64_t kPieceColumns = 128;

template <class T>
void append_columns(const AppendToCache& a) {
  const auto sequences = static_cast<std::int64_t>(a.lengths.size());
  const std::int64_t d = a.heads.dimension, stride = a.heads.channels(), rows = a.qkv.rows() / sequences;
  const std::int64_t capacity = a.keys.shape()[2];
  for (std::int64_t b = 0; b < sequences; ++b) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* k = a.qkv.data<T>() + (b * rows + i) * stride + a.heads.queries * d;
      for (std::int64_t g = 0; g < a.heads.keys; ++g) {
        const std::int64_t to =
            ((b * a.heads.keys + g) * capacity + a.lengths[static_cast<std::size_t>(b)] + i) * d;
        std::copy_n(k + g * d, d, a.keys.data<T>() + to);
        std::copy_n(k + (a.heads.keys + g) * d, d, a.values.data<T>() + to);
      }
    }
  }
}

/// One piece of the columns of one key and value head, for all its query rows: row q is token q / group of
/// the new ones, query head q % group.
template <class T>
struct PieceTask {
  using F = Lane<T>;
  const T *keys, *values;  // of the head, [capacity, d]
  const F* queries;        // [rows, deep], scaled
  std::int64_t rows, group, dimension, deep;
  std::int64_t begin, end;  // columns
  std::int64_t before;      // columns before the new tokens
  F* result;                // [rows, deep + 2]: weighed sum of values, maximum, sum of exponentials
};

template <class T>
void attend_piece(const PieceTask<T>& t) {
  using F = Lane<T>;
  const Lanes<T> d;
  const std::int64_t lanes = lanes_of(d), columns = t.end - t.begin;
  static thread_local std::vector<F> memory;
  const auto [scores] = carve_panels(memory, {t.rows * kPieceColumns});
  for (std::int64_t s = 0; s < columns; ++s) {
    const T* key = t.keys + (t.begin + s) * t.dimension;
    for (std::int64_t q = 0; q < t.rows; ++q) {
      const F* query = t.queries + q * t.deep;
      auto products = hn::Zero(d);
      for_vectors(d, t.dimension, [&](std::int64_t c, auto part) HWY_ATTR {
        products = hn::MulAdd(load(d, key + c, part), hn::LoadU(d, query + c), products);
      });
      scores[q * kPieceColumns + s] = sum(d, products);
    }
  }
  for (std::int64_t q = 0; q < t.rows; ++q) {
    F* row = scores + q * kPieceColumns;
    F* out = t.result + q * (t.deep + 2);
    const std::int64_t seen = std::clamp<std::int64_t>(t.before + q / t.group + 1 - t.begin, 0, columns);
    std::fill(out, out + t.deep + 2, F{0});
    out[t.deep] = -std::numeric_limits<F>::infinity();
    if (seen == 0) continue;
    const F top = *std::max_element(row, row + seen);
    F total = 0;
    for (std::int64_t s = 0; s < seen; s += lanes) {
      const std::int64_t count = std::min(lanes, seen - s);
      for (std::int64_t i = s + count; i < s + lanes && i < kPieceColumns; ++i)
        row[i] = -std::numeric_limits<F>::infinity();
      const auto e = exp(d, hn::Sub(hn::LoadU(d, row + s), hn::Set(d, top)));
      hn::StoreU(e, d, row + s);
      total += sum(d, e);
    }
    std::fill(row + seen, row + columns, F{0});
    out[t.deep] = top;
    out[t.deep + 1] = total;
  }
  for (std::int64_t s = 0; s < columns; ++s) {
    const T* value = t.values + (t.begin + s) * t.dimension;
    for (std::int64_t q = 0; q < t.rows; ++q) {
      const auto weight = hn::Set(d, scores[q * kPieceColumns + s]);
      F* out = t.result + q * (t.deep + 2);
      for_vectors(d, t.dimension, [&](std::int64_t c, auto part) HWY_ATTR {
        hn::StoreU(hn::MulAdd(weight, load(d, value + c, part), hn::LoadU(d, out + c)), d, out + c);
      });
    }
  }
}

/// Joins the pieces of one row, in order.
template <class T, class F = Lane<T>>
void merge_pieces(const F* results, std::int64_t pieces, std::int64_t stride, std::int64_t dimension,
                  std::int64_t deep, T* y) {
  const Lanes<T> d;
  F top = -std::numeric_limits<F>::infinity(), total = 0;
  for (std::int64_t p = 0; p < pieces; ++p) top = std::max(top, results[p * stride + deep]);
  for (std::int64_t p = 0; p < pieces; ++p)
    total += std::exp(results[p * stride + deep] - top) * results[p * stride + deep + 1];
  for_vectors(d, dimension, [&](std::int64_t c, auto part) HWY_ATTR {
    auto sum = hn::Zero(d);
    for (std::int64_t p = 0; p < pieces; ++p) {
      const F weight = std::exp(results[p * stride + deep] - top) / total;
      sum = hn::MulAdd(hn::Set(d, weight), hn::LoadU(d, results + p * stride + c), sum);
    }
    store(d, sum, y + c, part);
  });
}

template <class T>
void attend_few(const CachedAttention& a, std::int64_t tokens, Memory& memory) {
  using F = Lane<T>;
  const Lanes<T> d;
  const auto sequences = static_cast<std::int64_t>(a.lengths.size());
  const std::int64_t dimension = a.heads.dimension, deep = padded(dimension, lanes_of(d)),
                     group = a.heads.group();
  const std::int64_t rows = tokens * group, capacity = a.keys.shape()[2], groups = sequences * a.heads.keys;
  const std::int64_t longest = *std::max_element(a.lengths.begin(), a.lengths.end()) + tokens;
  const std::int64_t pieces = (longest + kPieceColumns - 1) / kPieceColumns, stride = deep + 2;
  // Sized for the whole cache, so that every step asks for the same block.
  const std::int64_t most_pieces = (capacity + kPieceColumns - 1) / kPieceColumns;
  const Tensor queries(memory, {groups, rows, deep}, TypeOf<F>::value);
  const Tensor results(memory, {groups, most_pieces, rows, stride}, TypeOf<F>::value);
  const F scale = 1 / std::sqrt(static_cast<F>(dimension));
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t b = g / a.heads.keys, head = g % a.heads.keys * group;
    for (std::int64_t i = 0; i < tokens; ++i)
      gather_rows(d, a.qkv.data<T>() + (b * tokens + i) * a.heads.channels() + head * dimension, dimension,
                  group, dimension, scale, queries.data<F>() + (g * rows + i * group) * deep, deep);
  }
  const bool is_large = groups * pieces * kPieceColumns * dimension > 1 << 16;
#pragma omp parallel for schedule(static) if (is_large)
  for (std::int64_t task = 0; task < groups * pieces; ++task) {
    const std::int64_t g = task / pieces, piece = task % pieces;
    const std::int64_t before = a.lengths[static_cast<std::size_t>(g / a.heads.keys)];
    const std::int64_t begin = std::min(piece * kPieceColumns, before + tokens);
    attend_piece(PieceTask<T>{.keys = a.keys.data<T>() + g * capacity * dimension,
                              .values = a.values.data<T>() + g * capacity * dimension,
                              .queries = queries.data<F>() + g * rows * deep,
                              .rows = rows,
                              .group = group,
                              .dimension = dimension,
                              .deep = deep,
                              .begin = begin,
                              .end = std::min(begin + kPieceColumns, before + tokens),
                              .before = before,
                              .result = results.data<F>() + (g * most_pieces + piece) * rows * stride});
  }
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t b = g / a.heads.keys, head = g % a.heads.keys * group;
    for (std::int64_t q = 0; q < rows; ++q)
      merge_pieces<T>(
          results.data<F>() + (g * most_pieces * rows + q) * stride, pieces, rows * stride, dimension, deep,
          a.y.data<T>() + (b * tokens + q / group) * a.y.channels() + (head + q % group) * dimension);
  }
}

template <class T>
void attend_many(const CachedAttention& a, std::int64_t tokens) {
  const auto sequences = static_cast<std::int64_t>(a.lengths.size());
  const std::int64_t d = a.heads.dimension, capacity = a.keys.shape()[2], group = a.heads.group();
#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t i = 0; i < sequences * a.heads.keys; ++i) {
    const std::int64_t b = i / a.heads.keys, head = i % a.heads.keys * group;
    causal_forward(CausalTask<T>{.q = a.qkv.data<T>() + b * tokens * a.heads.channels() + head * d,
                                 .k = a.keys.data<T>() + i * capacity * d,
                                 .v = a.values.data<T>() + i * capacity * d,
                                 .q_stride = a.heads.channels(),
                                 .kv_stride = d,
                                 .rows = tokens,
                                 .before = a.lengths[static_cast<std::size_t>(b)],
                                 .dimension = d,
                                 .group = group,
                                 .y = a.y.data<T>() + b * tokens * a.y.channels() + head * d,
                                 .y_stride = a.y.channels()});
  }
}

template <class T>
void run_cached(const CachedAttention& a, Memory& memory) {
  const std::int64_t tokens = a.qkv.rows() / static_cast<std::int64_t>(a.lengths.size());
  if (tokens <= kFewTokens) {
    attend_few<T>(a, tokens, memory);
  } else {
    attend_many<T>(a, tokens);
  }
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
