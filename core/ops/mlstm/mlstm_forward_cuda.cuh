#pragma once

#include "core/ops/mlstm/mlstm_chunks_cuda.cuh"

namespace bireme::cuda {

/// What the first pass leaves for those that follow.
template <class L>
struct MlstmScratch {
  L* shares;   // [B, H, T]: exp(w_s - largest) in the chunk's last document, else 0
  L* largest;  // [B, H, N]: the largest w of the chunk's last document
  L* carries;  // [B, H, N]: 1 where the chunk lets the state through, 0 where a document begins in it
};

/// One warp a chunk: b and w, the running maximum of w (in the place of p), each from the start of its
/// document on. b is a prefix sum in fp64: shut gates sum to thousands, and the exponents are differences of
/// these sums.
template <class T>
__global__ void mlstm_gates_kernel(MlstmLines<T> s, const Lane<T>* gates, MlstmScratch<Lane<T>> scratch) {
  using L = Lane<T>;
  constexpr L kNothing = -std::numeric_limits<L>::infinity();
  const std::int64_t number = std::int64_t{blockIdx.x} * (blockDim.x / kWarp) + threadIdx.x / kWarp,
                     line = blockIdx.y;
  if (number >= s.chunks) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, length = s.length(number);
  const std::int64_t begin = s.begin(number), kept = s.at_kept(line) + begin;
  const std::uint8_t* flags = s.starts != nullptr ? s.starts + s.sequence(line) * s.time + begin : nullptr;
  double carried_sum = 0;
  L carried_top = kNothing;
  for (int base = 0; base < length; base += kWarp) {
    const int t = base + lane;
    const bool inside = t < length;
    const L* gate = gates + s.at_gate(line, begin + (inside ? t : 0));
    const L input = inside ? gate[0] : kNothing;
    double sum = inside ? static_cast<double>(log_sigmoid(gate[s.heads])) : 0;
    int starts = inside && flags != nullptr && flags[t] != 0 ? 1 : 0;  // since the last one: nothing comes in
    const int own_start = starts;
    for (int step = 1; step < kWarp; step *= 2) {
      const double earlier = __shfl_up_sync(kFullWarp, sum, step);
      const int before = __shfl_up_sync(kFullWarp, starts, step);
      if (lane < step || starts != 0) continue;
      sum += earlier;
      starts = before;
    }
    if (starts == 0) sum += carried_sum;
    const L w = static_cast<L>(static_cast<double>(input) - sum);
    L top = own_start != 0 && w < 0 ? L{0} : w;  // a document begins with m = 0
    starts = own_start;
    for (int step = 1; step < kWarp; step *= 2) {
      const L earlier = __shfl_up_sync(kFullWarp, top, step);
      const int before = __shfl_up_sync(kFullWarp, starts, step);
      if (lane < step || starts != 0) continue;
      top = earlier > top ? earlier : top;
      starts = before;
    }
    if (starts == 0 && carried_top > top) top = carried_top;
    if (inside) {
      s.sums[kept + t] = static_cast<L>(sum);
      s.weights[kept + t] = w;
      s.tops[kept + t] = top;
    }
    carried_sum = __shfl_sync(kFullWarp, sum, kWarp - 1);
    carried_top = __shfl_sync(kFullWarp, top, kWarp - 1);
  }
  const int start = s.last_start(line, number, length);
  if (lane == 0) {
    scratch.largest[line * s.chunks + number] = carried_top;
    scratch.carries[line * s.chunks + number] = start < 0 ? 1 : 0;
  }
  __syncwarp();
  for (int t = lane; t < length; t += kWarp) {
    const L w = s.weights[kept + t];
    scratch.shares[line * s.time + begin + t] = t < start || w == kNothing ? L{0} : exp(w - carried_top);
  }
}

/// What a chunk's last document adds to the state, left where the state after the chunk will be:
/// Σ exp(w_s - largest w)·k_s·v_sᵀ.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2)
    mlstm_contribution_kernel(MlstmLines<T> s, MlstmScratch<Lane<T>> scratch) {
  const std::int64_t tiles = (s.keys + kTile - 1) / kTile * ((s.values + kTile - 1) / kTile);
  mlstm_state_tile<T>(s, s.k, Lane<T>{1}, scratch.shares, nullptr,
                      s.states + s.at_state(blockIdx.y, blockIdx.x / tiles + 1),
                      [&](std::int64_t, std::int64_t place) { return load(s.v + place); });
}

/// A state as it enters and leaves; the first three are null for an empty one.
template <class L>
struct MlstmEnds {
  const L *memory, *normalizer, *maximum;
  L *memory_out, *normalizer_out, *maximum_out;
};

/// One thread for every number of a line's state carries it through the chunks: the only pass that runs in
/// sequence. Every thread goes over the maxima again, the first one writes them.
template <class T>
__global__ void __launch_bounds__(kCarryThreads)
    mlstm_carry_kernel(MlstmLines<T> s, MlstmScratch<Lane<T>> scratch, MlstmEnds<Lane<T>> ends) {
  using L = Lane<T>;
  const std::int64_t e = std::int64_t{blockIdx.x} * kCarryThreads + threadIdx.x, line = blockIdx.y;
  if (e >= s.keys * (s.values + 1)) return;
  const MlstmNumber at(s, e);
  const std::int64_t of_line = line * (at.in_normalizer ? s.keys : s.keys * s.values) + at.unpadded;
  L x = 0, m = 0;
  if (ends.maximum != nullptr) {
    x = (at.in_normalizer ? ends.normalizer : ends.memory)[of_line];
    m = ends.maximum[line];
  }
  L* place = s.states + s.at_state(line, 0) + at.place;
  *place = x;
  if (e == 0) s.maxima[s.at_maximum(line, 0)] = m;
  for (std::int64_t c = 0; c < s.chunks; ++c) {
    place += s.state;
    const L sum = s.sums[s.at_kept(line) + s.begin(c) + s.length(c) - 1],
            largest = scratch.largest[line * s.chunks + c];
    if (scratch.carries[line * s.chunks + c] != 0) {
      const L top = m > largest ? m : largest;
      x = exp(m - top) * x + exp(largest - top) * *place;
      *place = x;
      m = sum + top;
    } else {
      x = *place;
      m = sum + largest;
    }
    if (e == 0) s.maxima[s.at_maximum(line, c + 1)] = m;
  }
  (at.in_normalizer ? ends.normalizer_out : ends.memory_out)[of_line] = x;
  if (e == 0) ends.maximum_out[line] = m;
}

/// Numbers of shared memory of a block of mlstm_output_kernel.
inline constexpr std::int64_t kMlstmOutputRoom = kTileRoom + kTile * kTileRow + 4 * kTile;

/// h of one tile of positions, from the state before the chunk and the positions up to its own, whose weights
/// stay on chip. Leaves p, the denominator and its slope.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2)
    mlstm_output_kernel(MlstmLines<T> s, T* h, Lane<T> epsilon) {
  using L = Lane<T>;
  const MlstmTile at(s);
  if (at.rows <= 0) return;
  L *room = dynamic_shared<L>(), *scores = room + kTileRoom, *tops = scores + kTile * kTileRow,
    *carried = tops + kTile, *factors = carried + kTile;
  int* starts = reinterpret_cast<int*>(factors + kTile);
  const std::int64_t kept = s.at_kept(at.line) + at.begin;
  const L* state = s.states + s.at_state(at.line, at.number);
  const L before = s.maxima[s.at_maximum(at.line, at.number)];
  mlstm_document_starts(s, at, at.first, starts);
  __syncthreads();
  for (int r = static_cast<int>(threadIdx.x); r < kTile; r += kTileThreads) {
    const bool inside = r < at.rows, same = inside && starts[r] < 0;
    L top = inside ? s.tops[kept + at.first + r] : L{0};
    if (same && before > top) top = before;
    tops[r] = top;
    carried[r] = same ? exp(before - top) : L{0};
    if (inside) s.tops[kept + at.first + r] = top;
  }
  const auto query = [&](int r, int i) {
    return r < at.rows ? s.scale * load(s.q + at.keys + (at.first + r) * s.key_step() + i) : L{0};
  };
  L normalizer[kTileSide] = {};
  for (int first_value = 0; first_value < s.values; first_value += kTile) {
    TilePart<L> part;
    for (int tile = 0; tile <= at.own(); ++tile) {
      const int first = tile * kTile;
      if (first_value == 0 || at.own() > 0) {  // scores of the only tile are still there
        TilePart<L> score;
        add_product<Along::depth, Along::depth>(
            score, room, static_cast<int>(s.keys), query, [&](int c, int i) {
              return first + c < at.length ? load(s.k + at.keys + (first + c) * s.key_step() + i) : L{0};
            });
        score.each([&](int r, int c, L& x) {
          const int t = at.first + r, position = first + c;
          const bool seen = r < at.rows && position <= t && position >= starts[r];
          x = seen ? x * exp(s.weights[kept + position] - tops[r]) : L{0};
          scores[r * kTileRow + c] = x;
        });
        if (first_value == 0)
          for (int i = 0; i < kTileSide; ++i)
            normalizer[i] += row_sum(score.v[i][0] + score.v[i][1] + score.v[i][2] + score.v[i][3]);
      }
      add_product<Along::depth, Along::side>(
          part, room, kTile, [&](int r, int c) { return scores[r * kTileRow + c]; },
          [&](int j, int c) {
            return first + c < at.length && first_value + j < s.values
                       ? load(s.v + at.values + (first + c) * s.value_step() + first_value + j)
                       : L{0};
          });
    }
    add_product<Along::depth, Along::side>(
        part, room, static_cast<int>(s.keys), [&](int r, int i) { return carried[r] * query(r, i); },
        [&](int j, int i) {
          return first_value + j < s.values ? state[i * s.width + first_value + j] : L{0};
        });
    if (first_value == 0) {
      for (int i = 0; i < kTileSide; ++i) {
        const int r = TilePart<L>::row(i);
        L product = 0;
        for (int c = static_cast<int>(threadIdx.x) % 16; c < s.keys; c += 16)
          product += query(r, c) * state[s.normalizer() + c];
        normalizer[i] += carried[r] * row_sum(product);
        if (threadIdx.x % 16 != 0 || r >= at.rows) continue;
        const std::int64_t t = at.begin + at.first + r, place = at.line * s.time + t;
        const L size = normalizer[i] < 0 ? -normalizer[i] : normalizer[i],
                floor = exp(-(s.sums[s.at_kept(at.line) + t] + tops[r]));
        const bool above = size > floor;
        const L denominator = (above ? size : floor) + epsilon;
        s.denominators[place] = denominator;
        s.slopes[place] = above ? (normalizer[i] < 0 ? L{-1} : L{1}) : L{0};
        factors[r] = 1 / denominator;
      }
      __syncthreads();
    }
    part.each([&](int r, int j, L x) {
      if (r < at.rows && first_value + j < s.values)
        store(h + at.values + (at.first + r) * s.value_step() + first_value + j, x * factors[r]);
    });
  }
}

}  // namespace bireme::cuda
