// Causal attention with grouped queries on the CPU, for attention_cpu.cpp. Included once for each instruction
// set, see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_ATTENTION_CAUSAL_ATTENTION_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_ATTENTION_CAUSAL_ATTENTION_CPU_H_
#undef BIREME_CORE_OPS_ATTENTION_CAUSAL_ATTENTION_CPU_H_
#else
#define BIREME_CORE_OPS_ATTENTION_CAUSAL_ATTENTION_CPU_H_
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

// Tiles of queries × keys. A tile of scores, the keys and the values (64 KiB each at d = 64) stay in the
// second-level cache; few queries, so that little is computed above the diagonal, in sixes as the products
// take them. Rows of keys are a line longer than a power of two: products read down columns.
constexpr std::int64_t kTileQueries = 48, kTileKeys = 256, kTileWidth = kTileKeys + 16;

/// One key and value head of one sequence with its group of query heads. Pointers are at the first row; row i
/// is token before + i of the sequence, of which keys and values hold all: one after another, or, for a
/// branch, those from `before` on in a place of their own.
template <class T>
struct CausalTask {
  const T *q, *k, *v;
  const T *own_k = nullptr, *own_v = nullptr;  // of a branch
  std::int64_t q_stride, kv_stride;
  std::int64_t rows, before, dimension, group;
  const std::int32_t* first = nullptr;  // of each row; null: 0
  T* y = nullptr;
  const T* dy = nullptr;
  std::int64_t y_stride = 0;
  Lane<T>* log_sum = nullptr;  // or null
  std::int64_t log_sum_stride = 0;
  T *dq = nullptr, *dk = nullptr, *dv = nullptr;  // strides of q, k and v
  T *own_dk = nullptr, *own_dv = nullptr;         // of a branch: dk and dv before it are added to
  bool accumulate = false;

  std::int64_t columns() const { return before + rows; }
  std::int64_t first_of(std::int64_t row) const { return first != nullptr ? first[row] : 0; }
  bool is_branch() const { return own_k != nullptr; }

  /// Calls f(first column, number of columns, row of these in `own` or not) for the parts of columns
  /// [begin, begin + count) that lie together.
  template <class F>
  void for_stretches(std::int64_t begin, std::int64_t count, const F& f) const {
    const std::int64_t shared = is_branch() ? std::clamp<std::int64_t>(before - begin, 0, count) : count;
    if (shared > 0) f(begin, shared, false);
    if (shared < count) f(begin + shared, count - shared, true);
  }
  /// The first column of such a part, given where the columns before the branch and its own are.
  template <class P>
  P* column(P* common, P* own, std::int64_t column, bool is_own) const {
    return is_own ? own + (column - before) * kv_stride : common + column * kv_stride;
  }
};

/// The part of a row of scores that is seen: [low, high) of the tile's columns.
struct Seen {
  std::int64_t low, high;
};
template <class T>
Seen seen_by(const CausalTask<T>& t, std::int64_t row, std::int64_t tile_begin, std::int64_t columns) {
  return {std::clamp<std::int64_t>(t.first_of(row) - tile_begin, 0, columns),
          std::clamp<std::int64_t>(t.before + row + 1 - tile_begin, 0, columns)};
}

/// Queries [begin, begin + rows) against the keys from tile_begin on.
struct CausalTile {
  std::int64_t begin, rows, tile_begin, columns;
};

/// Running maximum and sum of exponentials of each row of a tile.
template <class F>
struct RunningRow {
  F maximum = -std::numeric_limits<F>::infinity(), total = 0;
};

/// Replaces scores by exp(score - maximum), 0 where nothing is seen, and scales what `out` holds so far.
template <class D, class F = hn::TFromD<D>>
void running_softmax_row(D d, F* row, Seen seen, std::int64_t width, RunningRow<F>& running, F* out,
                         std::int64_t deep) {
  const std::int64_t lanes = lanes_of(d);
  if (seen.low >= seen.high) {
    std::fill(row, row + width, F{0});
    return;
  }
  const std::int64_t begin = seen.low / lanes * lanes, end = padded(seen.high, lanes);
  const F lowest = -std::numeric_limits<F>::infinity();
  std::fill(row + begin, row + seen.low, lowest);
  std::fill(row + seen.high, row + end, lowest);
  auto largest = hn::Set(d, running.maximum);
  for (std::int64_t j = begin; j < end; j += lanes) largest = hn::Max(largest, hn::LoadU(d, row + j));
  const F top = hn::GetLane(hn::MaxOfLanes(d, largest));
  const auto shift = hn::Set(d, top);
  auto sum = hn::Zero(d);
  for (std::int64_t j = begin; j < end; j += lanes) {
    const auto e = exp(d, hn::Sub(hn::LoadU(d, row + j), shift));
    hn::StoreU(e, d, row + j);
    sum = hn::Add(sum, e);
  }
  std::fill(row, row + begin, F{0});
  std::fill(row + end, row + width, F{0});
  if (running.total > 0 && top > running.maximum) {
    const F factor = std::exp(running.maximum - top);
    running.total *= factor;
    for (std::int64_t c = 0; c < deep; c += lanes)
      hn::StoreU(hn::Mul(hn::Set(d, factor), hn::LoadU(d, out + c)), d, out + c);
  }
  running.maximum = top;
  running.total += hn::GetLane(hn::SumOfLanes(d, sum));
}

/// Keys (or values) of the columns [begin, begin + count), transposed, rows padded with zeros.
template <class T, class F>
void pack_columns_transposed(const CausalTask<T>& t, const T* common, const T* own, std::int64_t begin,
                             std::int64_t count, F* to) {
  t.for_stretches(begin, count, [&](std::int64_t column, std::int64_t held, bool is_own) {
    transpose(t.column(common, own, column, is_own), t.kv_stride, held, t.dimension, to + column - begin,
              kTileWidth);
  });
  for (std::int64_t c = 0; c < t.dimension; ++c)
    std::fill(to + c * kTileWidth + count, to + (c + 1) * kTileWidth, F{0});
}

/// The same as rows.
template <class D, class T, class F = hn::TFromD<D>>
void pack_columns(D d, const CausalTask<T>& t, const T* common, const T* own, std::int64_t begin,
                  std::int64_t count, std::int64_t deep, F scale, F* to) {
  t.for_stretches(begin, count, [&](std::int64_t column, std::int64_t held, bool is_own) {
    gather_rows(d, t.column(common, own, column, is_own), t.kv_stride, held, t.dimension, scale,
                to + (column - begin) * deep, deep);
  });
}

/// Gradients of these columns to where they belong.
template <class D, class T, class F = hn::TFromD<D>>
void unpack_columns(D d, const CausalTask<T>& t, const F* from, std::int64_t begin, std::int64_t count,
                    std::int64_t deep, T* common, T* own) {
  t.for_stretches(begin, count, [&](std::int64_t column, std::int64_t held, bool is_own) {
    const bool adds = t.accumulate || (t.is_branch() && !is_own);
    unpack_rows(d, from + (column - begin) * deep, deep, held, t.dimension, adds,
                t.column(common, own, column, is_own), t.kv_stride);
  });
}

/// Keys transposed tile by tile, and values as rows.
template <class D, class T, class F = hn::TFromD<D>>
void pack_keys_and_values(D d, const CausalTask<T>& t, std::int64_t deep, F* keys, F* values) {
  for (std::int64_t s = 0; s < t.columns(); s += kTileKeys)
    pack_columns_transposed(t, t.k, t.own_k, s, std::min(kTileKeys, t.columns() - s),
                            keys + s / kTileKeys * t.dimension * kTileWidth);
  pack_columns(d, t, t.v, t.own_v, 0, t.columns(), deep, F{1}, values);
}

template <class T>
void causal_forward(const CausalTask<T>& t) {
  using F = Lane<T>;
  const Lanes<T> d;
  const std::int64_t lanes = lanes_of(d), deep = padded(t.dimension, lanes);
  const std::int64_t tiles = (t.columns() + kTileKeys - 1) / kTileKeys;
  static thread_local std::vector<F> memory;
  const auto [keys, values, queries, scores, out] =
      carve_panels(memory, {tiles * t.dimension * kTileWidth, t.columns() * deep, kTileQueries * deep,
                            kTileQueries * kTileWidth, kTileQueries * deep});
  pack_keys_and_values(d, t, deep, keys, values);
  const F scale = 1 / std::sqrt(static_cast<F>(t.dimension));
  for (std::int64_t item = 0; item < t.group * ((t.rows + kTileQueries - 1) / kTileQueries); ++item) {
    const std::int64_t head = item % t.group, begin = item / t.group * kTileQueries;
    const std::int64_t rows = std::min(kTileQueries, t.rows - begin), last = t.before + begin + rows;
    gather_rows(d, t.q + begin * t.q_stride + head * t.dimension, t.q_stride, rows, t.dimension, scale,
                queries, deep);
    RunningRow<F> running[kTileQueries] = {};
    std::fill(out, out + rows * deep, F{0});
    for (std::int64_t tile = t.first_of(begin) / kTileKeys; tile * kTileKeys < last; ++tile) {
      const std::int64_t tile_begin = tile * kTileKeys, columns = std::min(kTileKeys, last - tile_begin);
      const std::int64_t width = padded(columns, lanes);
      small_product<false>(d, rows, width, t.dimension, Strided<F>{queries, deep, 1},
                           keys + tile * t.dimension * kTileWidth, kTileWidth, scores, kTileWidth);
      for (std::int64_t i = 0; i < rows; ++i)
        running_softmax_row(d, scores + i * kTileWidth, seen_by(t, begin + i, tile_begin, columns), width,
                            running[i], out + i * deep, deep);
      small_product<true>(d, rows, deep, columns, Strided<F>{scores, kTileWidth, 1},
                          values + tile_begin * deep, deep, out, deep);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t row = begin + i;
      gather_rows(d, out + i * deep, deep, 1, deep, 1 / running[i].total, out + i * deep, deep);
      if (t.log_sum != nullptr)
        t.log_sum[row * t.log_sum_stride + head] = running[i].maximum + std::log(running[i].total);
    }
    unpack_rows(d, out, deep, rows, t.dimension, false, t.y + begin * t.y_stride + head * t.dimension,
                t.y_stride);
  }
}

/// From scores S and dP: P = exp(S - log_sum) over S, dS = P ∘ (dP - δ) over dP, 0 where nothing is seen.
template <class D, class F = hn::TFromD<D>>
void causal_gradient_row(D d, F* scores, F* dscores, F log_sum, F delta, Seen seen, std::int64_t columns) {
  const std::int64_t lanes = lanes_of(d);
  const std::int64_t begin = seen.low / lanes * lanes, end = padded(seen.high, lanes);
  const auto shift = hn::Set(d, log_sum), mean = hn::Set(d, delta);
  for (std::int64_t j = begin; j < end; j += lanes) {
    const auto p = exp(d, hn::Sub(hn::LoadU(d, scores + j), shift));
    hn::StoreU(p, d, scores + j);
    hn::StoreU(hn::Mul(p, hn::Sub(hn::LoadU(d, dscores + j), mean)), d, dscores + j);
  }
  for (F* row : {scores, dscores}) {
    std::fill(row, row + std::min(seen.low, columns), F{0});
    std::fill(row + std::max(seen.low, seen.high), row + std::max(end, columns), F{0});
  }
}

template <class F>
struct CausalArrays {
  F *keys, *keys_t, *values_t, *dkeys, *dvalues;  // of one tile
  F *queries, *dout, *scores, *dscores;           // of one tile
  F *dqueries, *deltas;                           // of all rows and heads of the group
};

/// The contribution of one tile, for one head.
template <class T>
void causal_backward_tile(const CausalTask<T>& t, const CausalTile& tile, std::int64_t head,
                          const CausalArrays<Lane<T>>& a, std::int64_t deep) {
  using F = Lane<T>;
  const Lanes<T> d;
  const auto [begin, rows, tile_begin, columns] = tile;
  const std::int64_t width = padded(columns, lanes_of(d));
  const F scale = 1 / std::sqrt(static_cast<F>(t.dimension));
  gather_rows(d, t.q + begin * t.q_stride + head * t.dimension, t.q_stride, rows, t.dimension, scale,
              a.queries, deep);
  gather_rows(d, t.dy + begin * t.y_stride + head * t.dimension, t.y_stride, rows, t.dimension, F{1}, a.dout,
              deep);
  small_product<false>(d, rows, width, t.dimension, Strided<F>{a.queries, deep, 1}, a.keys_t, kTileWidth,
                       a.scores, kTileWidth);
  small_product<false>(d, rows, width, t.dimension, Strided<F>{a.dout, deep, 1}, a.values_t, kTileWidth,
                       a.dscores, kTileWidth);
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t row = begin + i;
    causal_gradient_row(d, a.scores + i * kTileWidth, a.dscores + i * kTileWidth,
                        t.log_sum[row * t.log_sum_stride + head], a.deltas[head * t.rows + row],
                        seen_by(t, row, tile_begin, columns), columns);
  }
  small_product<true>(d, columns, deep, rows, Strided<F>{a.scores, 1, kTileWidth}, a.dout, deep, a.dvalues,
                      deep);
  small_product<true>(d, columns, deep, rows, Strided<F>{a.dscores, 1, kTileWidth}, a.queries, deep, a.dkeys,
                      deep);
  small_product<true>(d, rows, deep, columns, Strided<F>{a.dscores, kTileWidth, 1}, a.keys, deep,
                      a.dqueries + (head * t.rows + begin) * deep, deep);
}

template <class T>
void causal_backward(const CausalTask<T>& t) {
  using F = Lane<T>;
  const Lanes<T> d;
  const std::int64_t deep = padded(t.dimension, lanes_of(d));
  static thread_local std::vector<F> memory;
  const auto [keys, keys_t, values_t, dkeys, dvalues, queries, dout, scores, dscores, dqueries, deltas] =
      carve_panels(memory,
                   {kTileKeys * deep, t.dimension * kTileWidth, t.dimension * kTileWidth, kTileKeys * deep,
                    kTileKeys * deep, kTileQueries * deep, kTileQueries * deep, kTileQueries * kTileWidth,
                    kTileQueries * kTileWidth, t.group * t.rows * deep, t.group * t.rows});
  const CausalArrays<F> arrays{keys, keys_t, values_t, dkeys,    dvalues, queries,
                               dout, scores, dscores,  dqueries, deltas};
  std::fill(dqueries, dqueries + t.group * t.rows * deep, F{0});
  for (std::int64_t head = 0; head < t.group; ++head) {
    for (std::int64_t row = 0; row < t.rows; ++row) {
      const std::int64_t at = row * t.y_stride + head * t.dimension;
      deltas[head * t.rows + row] = dot(t.dy + at, t.y + at, t.dimension);
    }
  }
  const F scale = 1 / std::sqrt(static_cast<F>(t.dimension));
  for (std::int64_t tile_begin = 0; tile_begin < t.columns(); tile_begin += kTileKeys) {
    const std::int64_t held = std::min(kTileKeys, t.columns() - tile_begin);
    pack_columns(d, t, t.k, t.own_k, tile_begin, held, deep, scale, keys);  // dq = dS · (k/√d)
    pack_columns_transposed(t, t.k, t.own_k, tile_begin, held, keys_t);
    pack_columns_transposed(t, t.v, t.own_v, tile_begin, held, values_t);
    std::fill(dkeys, dkeys + held * deep, F{0});
    std::fill(dvalues, dvalues + held * deep, F{0});
    // Rows before this one see nothing of the tile.
    const std::int64_t earliest = std::max<std::int64_t>(0, tile_begin - t.before);
    for (std::int64_t begin = earliest / kTileQueries * kTileQueries; begin < t.rows; begin += kTileQueries) {
      if (t.first_of(begin) >= tile_begin + held) break;  // later rows start later still
      const std::int64_t rows = std::min(kTileQueries, t.rows - begin);
      const CausalTile tile{begin, rows, tile_begin, std::min(held, t.before + begin + rows - tile_begin)};
      for (std::int64_t head = 0; head < t.group; ++head) causal_backward_tile(t, tile, head, arrays, deep);
    }
    unpack_columns(d, t, dkeys, tile_begin, held, deep, t.dk, t.own_dk);
    unpack_columns(d, t, dvalues, tile_begin, held, deep, t.dv, t.own_dv);
  }
  for (std::int64_t head = 0; head < t.group; ++head)
    unpack_rows(d, dqueries + head * t.rows * deep, deep, t.rows, t.dimension, t.accumulate,
                t.dq + head * t.dimension, t.q_stride);
}

/// Places where one key and value head of a row lies in qkv, or its gradient in a tensor of the same shape.
template <class T>
struct HeadPlaces {
  T *q, *k, *v;
};
template <class T>
HeadPlaces<T> places_of(T* qkv, const AttentionHeads& heads, std::int64_t row, std::int64_t head) {
  T* at = qkv + row * heads.channels();
  const std::int64_t d = heads.dimension;
  return {at + head * heads.group() * d, at + (heads.queries + head) * d,
          at + (heads.queries + heads.keys + head) * d};
}

/// Calls body(task, first row, head) for every key and value head of every sequence, in parallel.
template <class T, class Body>
void for_each_group(const Tensor& qkv, const AttentionHeads& heads, std::int64_t length, const Tensor& first,
                    const Body& body) {
  const std::int64_t sequences = qkv.rows() / length, stride = heads.channels();
  const std::int64_t tasks = sequences * heads.keys;
  const bool is_large = tasks * length * length > 1 << 14;
#pragma omp parallel for schedule(dynamic, 1) if (is_large)
  for (std::int64_t i = 0; i < tasks; ++i) {
    const std::int64_t row = i / heads.keys * length, head = i % heads.keys;
    const HeadPlaces<const T> at = places_of<const T>(qkv.data<T>(), heads, row, head);
    body(CausalTask<T>{.q = at.q,
                       .k = at.k,
                       .v = at.v,
                       .q_stride = stride,
                       .kv_stride = stride,
                       .rows = length,
                       .before = 0,
                       .dimension = heads.dimension,
                       .group = heads.group(),
                       .first = first ? first.data<std::int32_t>() + row : nullptr},
         row, head);
  }
}

/// The same for documents that branch: one thread takes all pieces of a document, the trunk first, since the
/// branches add to its gradients.
template <class T, class Body>
void for_each_branch(const Tensor& qkv, const AttentionHeads& heads, std::span<const Branching> documents,
                     const Body& body) {
  const std::int64_t stride = heads.channels(), tasks = std::ssize(documents) * heads.keys;
  const bool is_large = qkv.rows() * qkv.rows() / std::max<std::int64_t>(1, std::ssize(documents)) > 1 << 12;
#pragma omp parallel for schedule(dynamic, 1) if (is_large)
  for (std::int64_t i = 0; i < tasks; ++i) {
    const Branching& document = documents[static_cast<std::size_t>(i / heads.keys)];
    const std::int64_t head = i % heads.keys;
    const HeadPlaces<const T> root = places_of<const T>(qkv.data<T>(), heads, document.begin, head);
    for (const Branching::Piece& piece : document.pieces()) {
      const HeadPlaces<const T> at = places_of<const T>(qkv.data<T>(), heads, piece.begin, head);
      CausalTask<T> task{.q = at.q,
                         .k = root.k,
                         .v = root.v,
                         .q_stride = stride,
                         .kv_stride = stride,
                         .rows = piece.length,
                         .before = piece.is_branch ? document.trunk : 0,
                         .dimension = heads.dimension,
                         .group = heads.group()};
      if (piece.is_branch) {
        task.own_k = at.k;
        task.own_v = at.v;
      }
      body(task, piece.begin, head, document.begin);
    }
  }
}

template <class T>
void run_causal_forward(const CausalAttentionForward& a) {
  const std::int64_t width = a.y.channels(), group = a.heads.group();
  const auto run = [&](CausalTask<T> task, std::int64_t row, std::int64_t head, std::int64_t = 0) {
    task.y = a.y.data<T>() + row * width + head * group * a.heads.dimension;
    task.y_stride = width;
    if (a.log_sum) task.log_sum = a.log_sum.data<Lane<T>>() + row * a.heads.queries + head * group;
    task.log_sum_stride = a.heads.queries;
    causal_forward(task);
  };
  if (a.documents.empty()) {
    for_each_group<T>(a.qkv, a.heads, a.length, a.first, run);
  } else {
    for_each_branch<T>(a.qkv, a.heads, a.documents, run);
  }
}

template <class T>
void run_causal_backward(const CausalAttentionBackward& a) {
  const std::int64_t width = a.y.channels(), group = a.heads.group(), d = a.heads.dimension;
  const auto run = [&](CausalTask<T> task, std::int64_t row, std::int64_t head, std::int64_t root) {
    const std::int64_t at = row * width + head * group * d;
    task.y = a.y.data<T>() + at;
    task.dy = a.dy.data<T>() + at;
    task.y_stride = width;
    task.log_sum = a.log_sum.data<Lane<T>>() + row * a.heads.queries + head * group;
    task.log_sum_stride = a.heads.queries;
    T* dqkv = a.dqkv.tensor.data<T>();
    const HeadPlaces<T> own = places_of(dqkv, a.heads, row, head),
                        common = places_of(dqkv, a.heads, root, head);
    task.dq = own.q;
    task.dk = common.k;
    task.dv = common.v;
    if (task.is_branch()) {
      task.own_dk = own.k;
      task.own_dv = own.v;
    }
    task.accumulate = a.dqkv.accumulate;
    causal_backward(task);
  };
  if (a.documents.empty()) {
    for_each_group<T>(
        a.qkv, a.heads, a.length, a.first,
        [&](const CausalTask<T>& task, std::int64_t row, std::int64_t head) { run(task, row, head, row); });
  } else {
    for_each_branch<T>(a.qkv, a.heads, a.documents, run);
  }
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
