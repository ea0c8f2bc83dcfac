#pragma once

#include "core/ops/mlstm/mlstm_chunks_cuda.cuh"

namespace bireme::cuda {

/// What the passes backward share, all [B, H, T] but for the states: λ, β, γ and 1 / den of each position,
/// what q·dq takes from the state before the chunk, and k·dk from the one after it; gradients of the states
/// as MlstmSaved::states; the flow within chunks.
template <class T>
struct MlstmReturn {
  using L = Lane<T>;
  const T *dh, *h;
  L *lambda, *beta, *gamma, *inverse, *into_query, *into_key, *states;
  double* flow;  // [B, H, tiles of a chunk, T], see mlstm_flow_kernel
  bool normalizer_gradient;
  T *dq = nullptr, *dk = nullptr, *dv = nullptr;
  L* dgates = nullptr;
  bool add_q = false, add_k = false, add_v = false, add_gates = false;
};

inline constexpr int kMlstmWarps = 4;

/// One warp a position: λ, β, γ and 1 / den.
template <class T>
__global__ void __launch_bounds__(kMlstmWarps* kWarp)
    mlstm_position_kernel(MlstmLines<T> s, MlstmReturn<T> g) {
  using L = Lane<T>;
  const std::int64_t t = std::int64_t{blockIdx.x} * kMlstmWarps + threadIdx.x / kWarp, line = blockIdx.y;
  if (t >= s.time) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t number = t / s.chunk, place = line * s.time + t, kept = s.at_kept(line);
  const int position = static_cast<int>(t - s.begin(number)), length = s.length(number);
  const int own = s.last_start(line, number, position + 1), last = s.last_start(line, number, length);
  const L slope = s.slopes[place];
  L product = 0;
  if (g.normalizer_gradient && slope != 0)
    for (std::int64_t j = lane; j < s.values; j += kWarp)
      product += load(g.dh + s.at_value(line, t) + j) * load(g.h + s.at_value(line, t) + j);
  product = warp_sum(product);
  if (lane != 0) return;
  const L inverse = 1 / s.denominators[place];
  g.inverse[place] = inverse;
  g.lambda[place] = -slope * product * inverse;
  g.beta[place] = own < 0 ? exp(s.maxima[s.at_maximum(line, number)] - s.tops[kept + t]) : L{0};
  g.gamma[place] =
      position >= last ? exp(s.weights[kept + t] - s.tops[kept + s.begin(number) + length - 1]) : L{0};
}

/// The part of the gradient of the state before a chunk that comes from the chunk's outputs.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2)
    mlstm_state_gradient_kernel(MlstmLines<T> s, MlstmReturn<T> g) {
  const std::int64_t tiles = (s.keys + kTile - 1) / kTile * ((s.values + kTile - 1) / kTile);
  mlstm_state_tile<T>(
      s, s.q, s.scale, g.beta, g.lambda, g.states + s.at_state(blockIdx.y, blockIdx.x / tiles),
      [&](std::int64_t position, std::int64_t place) { return load(g.dh + place) * g.inverse[position]; });
}

/// Gradients of the states at both ends; null where there are none, or none is wanted.
template <class L>
struct MlstmEndGradients {
  const L *memory_out, *normalizer_out;
  L *memory, *normalizer;
  bool add_memory, add_normalizer;
};

/// One thread for every number of a state carries its gradient back through the chunks.
template <class T>
__global__ void __launch_bounds__(kCarryThreads)
    mlstm_carry_back_kernel(MlstmLines<T> s, MlstmReturn<T> g, MlstmEndGradients<Lane<T>> ends) {
  using L = Lane<T>;
  const std::int64_t e = std::int64_t{blockIdx.x} * kCarryThreads + threadIdx.x, line = blockIdx.y;
  if (e >= s.keys * (s.values + 1)) return;
  const MlstmNumber at(s, e);
  const std::int64_t of_line = line * (at.in_normalizer ? s.keys : s.keys * s.values) + at.unpadded;
  const L* after = at.in_normalizer ? ends.normalizer_out : ends.memory_out;
  L x = after != nullptr ? after[of_line] : L{0};
  L* place = g.states + s.at_state(line, s.chunks) + at.place;
  *place = x;
  for (std::int64_t c = s.chunks; c-- > 0;) {
    place -= s.state;
    // β of the last position: 0 where a document begins in the chunk.
    x = *place + g.beta[line * s.time + s.begin(c) + s.length(c) - 1] * x;
    *place = x;
  }
  L* to = at.in_normalizer ? ends.normalizer : ends.memory;
  if (to != nullptr) contribute(to + of_line, x, at.in_normalizer ? ends.add_normalizer : ends.add_memory);
}

/// Shared memory of a block of the three kernels that follow, in numbers.
inline constexpr std::int64_t kMlstmReturnRoom = kTileRoom + kTile * kTileRow + kTile;

/// What they read of the chunk's positions, asked by tile and number in it; zeros past the chunk's end.
template <class T>
struct MlstmOperands {
  using L = Lane<T>;
  const MlstmLines<T>& s;
  const MlstmReturn<T>& g;
  const MlstmTile& at;

  __device__ L query(int t, int i) const {
    return t < at.length ? s.scale * load(s.q + at.keys + t * s.key_step() + i) : L{0};
  }
  __device__ L key(int t, int i) const {
    return t < at.length ? load(s.k + at.keys + t * s.key_step() + i) : L{0};
  }
  __device__ L value(int t, int j) const {
    return t < at.length ? load(s.v + at.values + t * s.value_step() + j) : L{0};
  }
  /// N
  __device__ L numerator(int t, int j) const {
    return t < at.length
               ? load(g.dh + at.values + t * s.value_step() + j) * g.inverse[at.line * s.time + at.begin + t]
               : L{0};
  }
  /// Of λ, β or γ.
  __device__ L weight(const L* of, int t) const {
    return t < at.length ? of[at.line * s.time + at.begin + t] : L{0};
  }
  /// D_ts, given the start of t's document.
  __device__ L share(int t, int position, int start) const {
    if (t >= at.length || position > t || position < start) return 0;
    const std::int64_t kept = s.at_kept(at.line) + at.begin;
    return exp(s.weights[kept + position] - s.tops[kept + t]);
  }
};

/// flow[i] += Σ over the columns that a thread holds of part · by(row, column).
template <class L, class By>
__device__ __forceinline__ void add_to_flow(L* flow, const TilePart<L>& part, const By& by) {
  for (int i = 0; i < kTileSide; ++i)
    for (int j = 0; j < kTileSide; ++j)
      flow[i] += part.v[i][j] * by(TilePart<L>::row(i), TilePart<L>::column(j));
}

/// dq of one tile of positions, and the part of q·dq that the state before the chunk has in it.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2)
    mlstm_query_gradient_kernel(MlstmLines<T> s, MlstmReturn<T> g) {
  using L = Lane<T>;
  const MlstmTile at(s);
  if (at.rows <= 0) return;
  L *room = dynamic_shared<L>(), *products = room + kTileRoom;
  int* starts = reinterpret_cast<int*>(products + kTile * kTileRow);
  const MlstmOperands<T> of{s, g, at};
  const L* state = s.states + s.at_state(at.line, at.number);
  mlstm_document_starts(s, at, at.first, starts);
  __syncthreads();
  L flow[kTileSide] = {};
  for (int first_key = 0; first_key < s.keys; first_key += kTile) {
    const auto inside = [&](int i) { return first_key + i < s.keys; };
    TilePart<L> part;
    add_product<Along::depth, Along::depth>(
        part, room, static_cast<int>(s.values),
        [&](int r, int j) { return of.weight(g.beta, at.first + r) * of.numerator(at.first + r, j); },
        [&](int i, int j) { return inside(i) ? state[(first_key + i) * s.width + j] : L{0}; });
    part.each([&](int r, int i, L& x) {
      const int t = at.first + r;
      if (inside(i))
        x += of.weight(g.beta, t) * of.weight(g.lambda, t) * state[s.normalizer() + first_key + i];
    });
    add_to_flow(flow, part,
                [&](int r, int i) { return inside(i) ? of.query(at.first + r, first_key + i) : L{0}; });
    for (int tile = 0; tile <= at.own(); ++tile) {
      const int first = tile * kTile;
      if (first_key == 0 || at.own() > 0) {  // the products of the only tile are still there
        TilePart<L> product;
        add_product<Along::depth, Along::depth>(
            product, room, static_cast<int>(s.values),
            [&](int r, int j) { return of.numerator(at.first + r, j); },
            [&](int c, int j) { return of.value(first + c, j); });
        product.each([&](int r, int c, L x) {
          const int t = at.first + r;
          products[r * kTileRow + c] = of.share(t, first + c, starts[r]) * (x + of.weight(g.lambda, t));
        });
      }
      add_product<Along::depth, Along::side>(
          part, room, kTile, [&](int r, int c) { return products[r * kTileRow + c]; },
          [&](int i, int c) { return inside(i) ? of.key(first + c, first_key + i) : L{0}; });
    }
    part.each([&](int r, int i, L x) {
      if (g.dq != nullptr && r < at.rows && inside(i))
        contribute(g.dq + at.keys + (at.first + r) * s.key_step() + first_key + i, s.scale * x, g.add_q);
    });
  }
  for (int i = 0; i < kTileSide; ++i) {
    const L total = row_sum(flow[i]);
    const int r = TilePart<L>::row(i);
    if (threadIdx.x % 16 == 0 && r < at.rows)
      g.into_query[at.line * s.time + at.begin + at.first + r] = total;
  }
}

/// dk of one tile of positions; k·dk, which is dĩ, and the part of it that the state after the chunk has.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2)
    mlstm_key_gradient_kernel(MlstmLines<T> s, MlstmReturn<T> g) {
  using L = Lane<T>;
  const MlstmTile at(s);
  if (at.rows <= 0) return;
  L *room = dynamic_shared<L>(), *products = room + kTileRoom;
  int* starts = reinterpret_cast<int*>(products + kTile * kTileRow);
  const MlstmOperands<T> of{s, g, at};
  const L* after = g.states + s.at_state(at.line, at.number + 1);
  const bool alone = at.own() == at.tiles() - 1;  // no other tile sees this one
  L outer[kTileSide] = {}, flow[kTileSide] = {};
  for (int first_key = 0; first_key < s.keys; first_key += kTile) {
    const auto inside = [&](int i) { return first_key + i < s.keys; };
    const auto key = [&](int r, int i) { return inside(i) ? of.key(at.first + r, first_key + i) : L{0}; };
    TilePart<L> part;
    add_product<Along::depth, Along::depth>(
        part, room, static_cast<int>(s.values),
        [&](int r, int j) { return of.weight(g.gamma, at.first + r) * of.value(at.first + r, j); },
        [&](int i, int j) { return inside(i) ? after[(first_key + i) * s.width + j] : L{0}; });
    part.each([&](int r, int i, L& x) {
      if (inside(i)) x += of.weight(g.gamma, at.first + r) * after[s.normalizer() + first_key + i];
    });
    add_to_flow(outer, part, key);
    for (int tile = at.own(); tile < at.tiles(); ++tile) {
      const int first = tile * kTile;
      if (first_key == 0 || !alone) {
        __syncthreads();
        mlstm_document_starts(s, at, first, starts);
        TilePart<L> product;  // [position, t]
        add_product<Along::depth, Along::depth>(
            product, room, static_cast<int>(s.values),
            [&](int r, int j) { return of.value(at.first + r, j); },
            [&](int c, int j) { return of.numerator(first + c, j); });
        product.each([&](int r, int c, L x) {
          const int t = first + c;
          products[r * kTileRow + c] = of.share(t, at.first + r, starts[c]) * (x + of.weight(g.lambda, t));
        });
      }
      add_product<Along::depth, Along::side>(
          part, room, kTile, [&](int r, int c) { return products[r * kTileRow + c]; },
          [&](int i, int c) { return inside(i) ? of.query(first + c, first_key + i) : L{0}; });
    }
    add_to_flow(flow, part, key);
    part.each([&](int r, int i, L x) {
      if (g.dk != nullptr && r < at.rows && inside(i))
        contribute(g.dk + at.keys + (at.first + r) * s.key_step() + first_key + i, x, g.add_k);
    });
  }
  for (int i = 0; i < kTileSide; ++i) {
    const L through_state = row_sum(outer[i]), total = row_sum(flow[i]);
    const int r = TilePart<L>::row(i);
    if (threadIdx.x % 16 != 0 || r >= at.rows) continue;
    const std::int64_t t = at.begin + at.first + r;
    g.into_key[at.line * s.time + t] = through_state;
    if (g.dgates != nullptr) contribute(g.dgates + s.at_gate(at.line, t), total, g.add_gates);
  }
}

/// dv of one tile of positions.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2)
    mlstm_value_gradient_kernel(MlstmLines<T> s, MlstmReturn<T> g) {
  using L = Lane<T>;
  const MlstmTile at(s);
  if (at.rows <= 0) return;
  L *room = dynamic_shared<L>(), *products = room + kTileRoom;
  int* starts = reinterpret_cast<int*>(products + kTile * kTileRow);
  const MlstmOperands<T> of{s, g, at};
  const L* after = g.states + s.at_state(at.line, at.number + 1);
  const bool alone = at.own() == at.tiles() - 1;
  for (int first_value = 0; first_value < s.values; first_value += kTile) {
    const auto inside = [&](int j) { return first_value + j < s.values; };
    TilePart<L> part;
    for (int tile = at.own(); tile < at.tiles(); ++tile) {
      const int first = tile * kTile;
      if (first_value == 0 || !alone) {
        __syncthreads();
        mlstm_document_starts(s, at, first, starts);
        TilePart<L> product;
        add_product<Along::depth, Along::depth>(
            product, room, static_cast<int>(s.keys), [&](int r, int i) { return of.key(at.first + r, i); },
            [&](int c, int i) { return of.query(first + c, i); });
        product.each([&](int r, int c, L x) {
          products[r * kTileRow + c] = of.share(first + c, at.first + r, starts[c]) * x;
        });
      }
      add_product<Along::depth, Along::side>(
          part, room, kTile, [&](int r, int c) { return products[r * kTileRow + c]; },
          [&](int j, int c) { return inside(j) ? of.numerator(first + c, first_value + j) : L{0}; });
    }
    add_product<Along::depth, Along::side>(
        part, room, static_cast<int>(s.keys),
        [&](int r, int i) { return of.weight(g.gamma, at.first + r) * of.key(at.first + r, i); },
        [&](int j, int i) { return inside(j) ? after[i * s.width + first_value + j] : L{0}; });
    part.each([&](int r, int j, L x) {
      if (r < at.rows && inside(j))
        contribute(g.dv + at.values + (at.first + r) * s.value_step() + first_value + j, x, g.add_v);
    });
  }
}

/// What queries of one tile of positions take from the keys of their chunk: Σ over s of
/// D_ts (N_t·v_s + λ_t) (q_t·k_s) at each t, less the same numbers summed over t at each s. A forget gate's
/// gradient sums both from its position on, where nearly all of them cancel: they do so to the last bit only
/// where they are the same, which dq and dk, each rounded, are not.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2) mlstm_flow_kernel(MlstmLines<T> s, MlstmReturn<T> g) {
  using L = Lane<T>;
  const MlstmTile at(s);
  if (at.rows <= 0) return;
  L *room = dynamic_shared<L>(), *products = room + kTileRoom;
  int* starts = reinterpret_cast<int*>(products + kTile * kTileRow);
  const MlstmOperands<T> of{s, g, at};
  const std::int64_t tiles = (s.chunk + kTile - 1) / kTile;
  double* flow = g.flow + (at.line * tiles + at.own()) * s.time + at.begin;
  const int thread = static_cast<int>(threadIdx.x);
  mlstm_document_starts(s, at, at.first, starts);
  double taken = 0;  // by query `thread` of the tile
  for (int tile = 0; tile <= at.own(); ++tile) {
    const int first = tile * kTile;
    TilePart<L> product, score;
    add_product<Along::depth, Along::depth>(
        product, room, static_cast<int>(s.values),
        [&](int r, int j) { return of.numerator(at.first + r, j); },
        [&](int c, int j) { return of.value(first + c, j); });
    add_product<Along::depth, Along::depth>(
        score, room, static_cast<int>(s.keys), [&](int r, int i) { return of.query(at.first + r, i); },
        [&](int c, int i) { return of.key(first + c, i); });
    for (int i = 0; i < kTileSide; ++i)
      for (int j = 0; j < kTileSide; ++j) {
        const int r = TilePart<L>::row(i), c = TilePart<L>::column(j), t = at.first + r;
        products[r * kTileRow + c] =
            of.share(t, first + c, starts[r]) * (product.v[i][j] + of.weight(g.lambda, t)) * score.v[i][j];
      }
    __syncthreads();
    if (thread < kTile) {
      double given = 0;
      for (int r = 0; r < kTile; ++r) given += double{products[r * kTileRow + thread]};
      for (int c = 0; c < kTile; ++c) taken += double{products[thread * kTileRow + c]};
      if (first + thread < at.length) flow[first + thread] = (tile == at.own() ? taken : 0) - given;
    }
  }
}

inline constexpr int kForgetThreads = 256;

/// df̃ of one chunk of a line by a block: what the state after the chunk hands on, and the flow from each
/// position on. Thread i sums its share of the positions from the end, the shares are joined in order, and
/// each runs again with what lies behind it. In fp64: the sum is made of differences.
template <class T>
__global__ void __launch_bounds__(kForgetThreads)
    mlstm_forget_gradient_kernel(MlstmLines<T> s, MlstmReturn<T> g, const Lane<T>* gates) {
  using L = Lane<T>;
  __shared__ double sums[kForgetThreads], room[kForgetThreads / kWarp];
  __shared__ bool starts[kForgetThreads];
  const std::int64_t line = blockIdx.y, number = blockIdx.x, first = s.begin(number),
                     past = first + s.length(number);
  const int thread = static_cast<int>(threadIdx.x);
  const L *state = s.states + s.at_state(line, number + 1), *dstate = g.states + s.at_state(line, number + 1);
  double product = 0;
  for (std::int64_t e = thread; e < s.keys * (s.values + 1); e += kForgetThreads) {
    const MlstmNumber at(s, e);
    product += double{state[at.place]} * double{dstate[at.place]};
  }
  const double ends = block_sum<kForgetThreads / kWarp>(product, room);
  const auto within = [past](std::int64_t t) { return t < past ? t : past; };
  const std::int64_t share = (past - first + kForgetThreads - 1) / kForgetThreads,
                     begin = within(first + thread * share), end = within(begin + share);
  const std::uint8_t* flags = s.starts != nullptr ? s.starts + s.sequence(line) * s.time : nullptr;
  const std::int64_t tiles = (s.chunk + kTile - 1) / kTile;
  const auto flow = [&](std::int64_t t) {
    double x = double{g.into_query[line * s.time + t]} - double{g.into_key[line * s.time + t]};
    for (std::int64_t tile = (t - first) / kTile; tile * kTile < past - first; ++tile)
      x += g.flow[(line * tiles + tile) * s.time + t];
    return x;
  };
  double total = 0;
  bool start = false;
  for (std::int64_t t = end; t-- > begin;) {
    total += flow(t);
    if (flags == nullptr || flags[t] == 0) continue;
    total = 0;
    start = true;
  }
  sums[thread] = total;
  starts[thread] = start;
  __syncthreads();
  if (thread == 0) {
    double behind = ends;
    for (int i = kForgetThreads; i-- > 0;) {
      const double own = sums[i];
      sums[i] = behind;
      behind = starts[i] ? own : behind + own;
    }
  }
  __syncthreads();
  total = sums[thread];
  for (std::int64_t t = end; t-- > begin;) {
    total += flow(t);
    const std::int64_t gate = s.at_gate(line, t) + s.heads;
    contribute(g.dgates + gate, sigmoid(-gates[gate]) * static_cast<L>(total), g.add_gates);
    if (flags != nullptr && flags[t] != 0) total = 0;
  }
}

}  // namespace bireme::cuda
