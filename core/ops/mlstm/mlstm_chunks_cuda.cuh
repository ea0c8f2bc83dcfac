#pragma once

#include <cmath>
#include <limits>

#include "core/cuda/activations.cuh"
#include "core/cuda/column_sums.cuh"
#include "core/cuda/tile_product.cuh"
#include "core/ops/mlstm/mlstm_kernels.h"

namespace bireme::cuda {

/// Sizes and tensors that all passes over an mLSTM share; a "line" is one head of one sequence.
template <class T>
struct MlstmLines {
  using L = Lane<T>;
  const T *q, *k, *v;
  const std::uint8_t* starts;                     // [B, T], or null
  std::int64_t time, heads, keys, values, chunk;  // T, H, dk, dv
  std::int64_t chunks, lines, width, state;       // width: padded dv, from row to row of a state
  L *states, *maxima, *sums, *weights, *tops;     // MlstmSaved
  L *denominators, *slopes;
  L scale;  // 1 / √dk

  __device__ std::int64_t sequence(std::int64_t line) const { return line / heads; }
  /// Where the channels of a line's position begin, and from one position to the next.
  __device__ std::int64_t key_step() const { return heads * keys; }
  __device__ std::int64_t value_step() const { return heads * values; }
  __device__ std::int64_t at_key(std::int64_t line, std::int64_t t) const {
    return ((sequence(line) * time + t) * heads + line % heads) * keys;
  }
  __device__ std::int64_t at_value(std::int64_t line, std::int64_t t) const {
    return ((sequence(line) * time + t) * heads + line % heads) * values;
  }
  __device__ std::int64_t at_gate(std::int64_t line, std::int64_t t) const {
    return (sequence(line) * time + t) * 2 * heads + line % heads;
  }
  /// Where b, w and p of a line begin: they share a tensor.
  __device__ std::int64_t at_kept(std::int64_t line) const { return line * 3 * time; }
  __device__ std::int64_t at_state(std::int64_t line, std::int64_t number) const {
    return (line * (chunks + 1) + number) * state;
  }
  __device__ std::int64_t at_maximum(std::int64_t line, std::int64_t number) const {
    return line * (chunks + 1) + number;
  }
  /// Where ñ begins in a state.
  __device__ std::int64_t normalizer() const { return keys * width; }
  __device__ std::int64_t begin(std::int64_t number) const { return number * chunk; }
  __device__ int length(std::int64_t number) const {
    const std::int64_t rest = time - begin(number);
    return static_cast<int>(rest < chunk ? rest : chunk);
  }

  /// The last start of a document in [begin, end) of a chunk, or -1. By a whole warp.
  __device__ int last_start(std::int64_t line, std::int64_t number, int end) const {
    if (starts == nullptr) return -1;
    const std::uint8_t* flags = starts + sequence(line) * time + begin(number);
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    for (int base = (end - 1) / kWarp * kWarp; base >= 0; base -= kWarp) {
      const int t = base + lane;
      const unsigned votes = __ballot_sync(kFullWarp, t < end && flags[t] != 0 ? 1 : 0);
      if (votes != 0) return base + 31 - __clz(static_cast<int>(votes));
    }
    return -1;
  }
};

template <class T, class A>
MlstmLines<T> mlstm_lines(const A& a, const Tensor& starts) {
  using L = Lane<T>;
  const MlstmSizes& s = a.sizes;
  L* gates = a.saved.gates.template data<L>();
  MlstmLines<T> lines{.q = a.q.template data<T>(),
                      .k = a.k.template data<T>(),
                      .v = a.v.template data<T>(),
                      .starts = data_or_null<std::uint8_t>(starts),
                      .time = s.time,
                      .heads = s.heads,
                      .keys = s.keys,
                      .values = s.values,
                      .chunk = s.chunk,
                      .chunks = s.chunks(),
                      .lines = s.sequences * s.heads,
                      .width = MlstmSizes::padded(s.values),
                      .state = s.state(),
                      .states = a.saved.states.template data<L>(),
                      .maxima = a.saved.maxima.template data<L>(),
                      .sums = gates,
                      .weights = gates + s.time,
                      .tops = gates + 2 * s.time,
                      .denominators = a.saved.denominator.template data<L>(),
                      .slopes = a.saved.slope.template data<L>(),
                      .scale = 1 / std::sqrt(static_cast<L>(s.keys))};
  return lines;
}

/// The tile of a block: up to 64 positions of a chunk.
struct MlstmTile {
  std::int64_t line, number;  // of the chunk
  int first, rows, length;    // within the chunk; length: of the chunk
  std::int64_t begin;         // of the chunk, in the sequence
  std::int64_t keys, values;  // where those of the chunk begin

  template <class T>
  __device__ explicit MlstmTile(const MlstmLines<T>& s) {
    const std::int64_t tiles = (s.chunk + kTile - 1) / kTile;
    line = blockIdx.y;
    number = blockIdx.x / tiles;
    first = static_cast<int>(blockIdx.x % tiles) * kTile;
    begin = s.begin(number);
    length = s.length(number);
    rows = length - first < kTile ? length - first : kTile;
    keys = s.at_key(line, begin);
    values = s.at_value(line, begin);
  }
  /// Tiles of the chunk before, and with, the own.
  __device__ int own() const { return first / kTile; }
  __device__ int tiles() const { return (length + kTile - 1) / kTile; }
};

/// starts[r]: the last start of a document at or before position first + r of the chunk, or -1. Two warps
/// write it, whoever reads it waits for a barrier.
template <class T>
__device__ void mlstm_document_starts(const MlstmLines<T>& s, const MlstmTile& at, int first, int* starts) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  if (warp >= kTile / kWarp) return;
  const int t = first + warp * kWarp + lane;
  int last = s.last_start(at.line, at.number, first + warp * kWarp < at.length ? first + warp * kWarp : 0);
  if (s.starts != nullptr) {
    const std::uint8_t* flags = s.starts + s.sequence(at.line) * s.time + at.begin;
    const unsigned votes =
        __ballot_sync(kFullWarp, t < at.length && flags[t] != 0 ? 1 : 0) & (kFullWarp >> (kWarp - 1 - lane));
    if (votes != 0) last = first + warp * kWarp + 31 - __clz(static_cast<int>(votes));
  }
  starts[warp * kWarp + lane] = last;
}

/// Blocks of kTileThreads for every tile of positions.
template <class T>
Grid mlstm_tile_grid(const MlstmLines<T>& s, std::int64_t numbers) {
  return {{to_unsigned(s.chunks * ceil_div(s.chunk, kTile)), to_unsigned(s.lines)},
          {kTileThreads},
          static_cast<std::size_t>(numbers) * sizeof(Lane<T>)};
}

/// Blocks for every tile of the matrices [dk, dv] of each chunk.
template <class T>
Grid mlstm_state_grid(const MlstmLines<T>& s) {
  return {{to_unsigned(s.chunks * ceil_div(s.keys, kTile) * ceil_div(s.values, kTile)), to_unsigned(s.lines)},
          {kTileThreads},
          kTileRoom * sizeof(Lane<T>)};
}

inline constexpr int kCarryThreads = 256;

/// One thread for every number of a state.
template <class T>
Grid mlstm_carry_grid(const MlstmLines<T>& s) {
  return {{to_unsigned(ceil_div(s.keys * (s.values + 1), kCarryThreads)), to_unsigned(s.lines)},
          {kCarryThreads}};
}

/// One number of a state: of C̃ [dk, dv], or of ñ [dk].
struct MlstmNumber {
  std::int64_t place;     // in a padded state
  std::int64_t unpadded;  // in a tensor [B, H, dk, dv] or [B, H, dk], from the line's first
  bool in_normalizer;

  template <class T>
  __device__ MlstmNumber(const MlstmLines<T>& s, std::int64_t e) {
    const std::int64_t numbers = s.keys * s.values;
    in_normalizer = e >= numbers;
    unpadded = in_normalizer ? e - numbers : e;
    place = in_normalizer ? s.normalizer() + unpadded : e / s.values * s.width + e % s.values;
  }
};

/// to[i, j] = Σ over s of weight[s]·from[s, i]·right[s, j] for one tile of a chunk's [dk, dv], and the same
/// for the normaliser with `normalizer_weight` (or 1) in place of `right`, which is
/// asked by the position in [B, H, T], as weights are laid out, and the place in [B·T, H·dv].
template <class T, class Right>
__device__ void mlstm_state_tile(const MlstmLines<T>& s, const T* from, Lane<T> factor, const Lane<T>* weight,
                                 const Lane<T>* normalizer_weight, Lane<T>* to, const Right& right) {
  using L = Lane<T>;
  L* room = dynamic_shared<L>();
  const std::int64_t line = blockIdx.y, across = (s.values + kTile - 1) / kTile,
                     tiles = (s.keys + kTile - 1) / kTile * across;
  const std::int64_t number = blockIdx.x / tiles, tile = blockIdx.x % tiles, begin = s.begin(number);
  const std::int64_t first_key = tile / across * kTile, first_value = tile % across * kTile;
  const int length = s.length(number);
  const L* w = weight + line * s.time + begin;
  from += s.at_key(line, begin) + first_key;
  const std::int64_t keys = s.keys - first_key, values = s.values - first_value,
                     right_place = s.at_value(line, begin) + first_value;
  TilePart<L> part;
  add_product<Along::side, Along::side>(
      part, room, length,
      [&](int i, int t) { return i < keys ? factor * w[t] * load(from + t * s.key_step() + i) : L{0}; },
      [&](int j, int t) {
        return j < values ? right(line * s.time + begin + t, right_place + t * s.value_step() + j) : L{0};
      });
  L* corner = to + first_key * s.width + first_value;
  part.each([&](int i, int j, L x) {
    if (i < keys && j < values) corner[i * s.width + j] = x;
  });
  const int i = static_cast<int>(threadIdx.x);
  if (first_value > 0 || i >= kTile || i >= keys) return;
  L sum = 0;
  const L* own = normalizer_weight != nullptr ? normalizer_weight + line * s.time + begin : nullptr;
  for (int t = 0; t < length; ++t)
    sum += w[t] * (own != nullptr ? own[t] : L{1}) * load(from + t * s.key_step() + i);
  to[s.normalizer() + first_key + i] = factor * sum;
}

}  // namespace bireme::cuda
