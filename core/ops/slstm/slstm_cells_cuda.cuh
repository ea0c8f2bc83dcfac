#pragma once

#include "core/cuda/activations.cuh"
#include "core/ops/slstm/slstm_recurrent_cuda.cuh"

namespace bireme::cuda {

/// Of a head and sequence; null where there is none.
template <class L>
struct SlstmEnds {
  L *h = nullptr, *c = nullptr, *n = nullptr, *m = nullptr;
};

template <class T>
struct SlstmPass {
  using L = Lane<T>;
  const L *gates, *recurrent, *bias;
  const std::uint8_t* starts;
  SlstmEnds<const L> before;
  SlstmEnds<L> after;
  T* h;
  L *hidden, *kept;  // or null
};

/// One step of a unit.
template <bool kClassical, class L>
__device__ __forceinline__ void slstm_cell(L i_pre, L f_pre, L z_pre, L o_pre, L& h, L& c, L& n, L& m,
                                           L (&kept)[7]) {
  const L z = tanh(z_pre), o = sigmoid(o_pre);
  L input, forget, shut;
  if constexpr (kClassical) {
    input = sigmoid(i_pre), forget = sigmoid(f_pre), shut = 1 - forget;
    c = forget * c + input * z;
    n = tanh(c);
    h = o * n;
  } else {
    shut = sigmoid(-f_pre);
    const L carried = log_sigmoid(f_pre) + m;
    m = n == 0 || i_pre > carried ? i_pre : carried;
    input = exp(i_pre - m < 0 ? i_pre - m : L{0});
    forget = exp(carried - m < 0 ? carried - m : L{0});
    c = forget * c + input * z;
    n = forget * n + input;
    h = o * c / n;
  }
  kept[0] = input, kept[1] = forget, kept[2] = z, kept[3] = o, kept[4] = shut, kept[5] = c, kept[6] = n;
}

/// Numbers of shared memory: h twice, c, n, m, and R's share.
inline std::int64_t slstm_forward_room(const SlstmShape& s) {
  return 5 * s.padded + std::int64_t{s.in_shared} * s.lines;
}

/// A block takes one head of one sequence through time; one barrier a step, since h has two places.
template <bool kClassical, int kHeld, class T>
__global__ void __launch_bounds__(kSlstmThreads<kHeld>) slstm_forward_kernel(SlstmShape s, SlstmPass<T> a) {
  using L = Lane<T>;
  L *h = dynamic_shared<L>(), *c = h + 2 * s.padded, *n = c + s.padded, *m = n + s.padded;
  const auto row = [&](int line) -> const L* {
    const int unit = line / 4, gate = line % 4;
    return unit < s.units ? a.recurrent + ((std::int64_t{s.head()} * 4 + gate) * s.units + unit) * s.units
                          : nullptr;
  };
  const SlstmLine<L, kHeld> matrix(s, m + s.padded, 1, row);
  const std::int64_t state = (s.sequence() * s.heads + s.head()) * s.units;
  for (int j = static_cast<int>(threadIdx.x); j < s.padded; j += static_cast<int>(blockDim.x)) {
    const bool is_there = j < s.units && a.before.h != nullptr;
    h[j] = is_there ? a.before.h[state + j] : L{0};
    h[s.padded + j] = 0;
    c[j] = is_there ? a.before.c[state + j] : L{0};
    n[j] = is_there ? a.before.n[state + j] : L{0};
    m[j] = is_there ? a.before.m[state + j] : L{0};
  }
  const int gate = static_cast<int>(threadIdx.x) % 4;
  const auto pre = [&](std::int64_t t, int unit) {
    return unit < s.units && t < s.time ? a.gates[(s.at(t) * 4 + gate) * s.units + unit] : L{0};
  };
  const int first = static_cast<int>(threadIdx.x) / 4, step = static_cast<int>(blockDim.x) / 4;
  L next = pre(0, first);
  __syncthreads();
  for (std::int64_t t = 0; t < s.time; ++t) {
    const L* h_before = h + t % 2 * s.padded;
    L* h_now = h + (t + 1) % 2 * s.padded;
    const bool fresh = a.starts != nullptr && a.starts[s.sequence() * s.time + t] != 0;
    for (int unit = first; unit * 4 < s.lines; unit += step) {
      const bool inside = unit < s.units;
      const L own = kHeld > 0 ? next : pre(t, unit);
      if (kHeld > 0) next = pre(t + 1, unit);  // on its way while this step runs
      L sum = own + (inside ? a.bias[(gate * s.heads + s.head()) * s.units + unit] : L{0});
      if (!fresh) sum = matrix.times(s, unit * 4 + gate, row(unit * 4 + gate), 1, h_before, sum);
      const L i_pre = __shfl_sync(kFullWarp, sum, 0, 4), f_pre = __shfl_sync(kFullWarp, sum, 1, 4),
              z_pre = __shfl_sync(kFullWarp, sum, 2, 4), o_pre = __shfl_sync(kFullWarp, sum, 3, 4);
      if (gate != 0 || !inside) continue;
      L state_h = 0, state_c = fresh ? L{0} : c[unit], state_n = fresh ? L{0} : n[unit],
        state_m = fresh ? L{0} : m[unit], kept[7];
      slstm_cell<kClassical>(i_pre, f_pre, z_pre, o_pre, state_h, state_c, state_n, state_m, kept);
      h_now[unit] = state_h, c[unit] = state_c, n[unit] = state_n, m[unit] = state_m;
      store(a.h + s.at(t) * s.units + unit, state_h);
      if (a.hidden != nullptr) a.hidden[s.at(t) * s.units + unit] = state_h;
      if (a.kept == nullptr) continue;
      for (int k = 0; k < 7; ++k) a.kept[(s.at(t) * 7 + k) * s.units + unit] = kept[k];
    }
    __syncthreads();
  }
  for (int j = static_cast<int>(threadIdx.x); j < s.units; j += static_cast<int>(blockDim.x)) {
    a.after.h[state + j] = h[s.time % 2 * s.padded + j];
    a.after.c[state + j] = c[j];
    a.after.n[state + j] = n[j];
    a.after.m[state + j] = m[j];
  }
}

template <class T>
struct SlstmReturn {
  using L = Lane<T>;
  const T* dh;                // or null
  SlstmEnds<const L> dafter;  // each may be null
  const L* recurrent;
  const std::uint8_t* starts;
  SlstmEnds<const L> before;
  const L *hidden, *kept;
  L* dgates;                  // [B·T, H, 4, D]: what dR and db are made of
  L* added_dgates = nullptr;  // to add to, where it is not the same
  SlstmEnds<L> dbefore = {};
  bool add_h = false, add_c = false, add_n = false;
};

/// The same step back: dgates of a unit from all that reaches its h; dc and dn move to the step before.
template <bool kClassical, class L>
__device__ __forceinline__ void slstm_cell_gradient(const L* kept, int units, L h, L c_before, L n_before,
                                                    L dh, L& dc, L& dn, L (&dgates)[4]) {
  const L input = kept[0], forget = kept[units], z = kept[2 * units], o = kept[3 * units],
          shut = kept[4 * units], last = kept[6 * units];
  if constexpr (kClassical) {
    dc += dh * o * (1 - last * last);
    dgates[0] = dc * z * (input * (1 - input));
    dgates[1] = dc * c_before * (forget * shut);
  } else {
    const L share = dh / last;
    dc += share * o;
    dn -= share * h;
    dgates[0] = input * (dc * z + dn);
    dgates[1] = forget * shut * (dc * c_before + dn * n_before);
    dn *= forget;
  }
  dgates[2] = dc * input * (1 - z * z);
  dgates[3] = dh * h * (1 - o);
  dc *= forget;
}

/// From one gate's dgates to the next: on other banks, as the four threads of a unit read all four at once.
inline int slstm_gate_row(int padded) { return padded + 8; }

/// Numbers of shared memory: dgates twice, dh, dc, dn, and R's share.
inline std::int64_t slstm_backward_room(const SlstmShape& s) {
  return 8 * slstm_gate_row(s.padded) + 3 * s.padded + std::int64_t{s.in_shared} * s.lines;
}

/// A block takes one head of one sequence back through time.
template <bool kClassical, int kHeld, class T>
__global__ void __launch_bounds__(kSlstmThreads<kHeld>)
    slstm_backward_kernel(SlstmShape s, SlstmReturn<T> a, int gate_row) {
  using L = Lane<T>;
  L *dgates = dynamic_shared<L>(), *dh = dgates + 8 * gate_row, *dc = dh + s.padded, *dn = dc + s.padded;
  const auto column = [&](int line) -> const L* {
    const int unit = line / 4, gate = line % 4;
    return unit < s.units ? a.recurrent + (std::int64_t{s.head()} * 4 + gate) * s.units * s.units + unit
                          : nullptr;
  };
  const SlstmLine<L, kHeld> matrix(s, dn + s.padded, s.units, column);
  const std::int64_t state = (s.sequence() * s.heads + s.head()) * s.units;
  for (int j = static_cast<int>(threadIdx.x); j < 8 * gate_row; j += static_cast<int>(blockDim.x))
    dgates[j] = 0;
  for (int j = static_cast<int>(threadIdx.x); j < s.units; j += static_cast<int>(blockDim.x)) {
    dh[j] = a.dafter.h != nullptr ? a.dafter.h[state + j] : L{0};
    dc[j] = a.dafter.c != nullptr ? a.dafter.c[state + j] : L{0};
    dn[j] = a.dafter.n != nullptr ? a.dafter.n[state + j] : L{0};
  }
  const int gate = static_cast<int>(threadIdx.x) % 4, first = static_cast<int>(threadIdx.x) / 4,
            step = static_cast<int>(blockDim.x) / 4;
  __syncthreads();
  for (std::int64_t t = s.time; t-- > 0;) {
    L* own = dgates + t % 2 * 4 * gate_row;
    const bool is_start = a.starts != nullptr && a.starts[s.sequence() * s.time + t] != 0;
    const std::int64_t at = s.at(t), before = at - s.heads;
    for (int unit = first; unit < s.units && gate == 0; unit += step) {
      L c_before = 0, n_before = 0;
      if (!is_start && t > 0) {
        c_before = a.kept[(before * 7 + 5) * s.units + unit];
        n_before = a.kept[(before * 7 + 6) * s.units + unit];
      } else if (!is_start && a.before.c != nullptr) {
        c_before = a.before.c[state + unit];
        n_before = a.before.n[state + unit];
      }
      const L above = a.dh != nullptr ? load(a.dh + at * s.units + unit) : L{0};
      L unit_dc = dc[unit], unit_dn = dn[unit], result[4];
      slstm_cell_gradient<kClassical>(a.kept + at * 7 * s.units + unit, s.units,
                                      a.hidden[at * s.units + unit], c_before, n_before, dh[unit] + above,
                                      unit_dc, unit_dn, result);
      dc[unit] = is_start ? L{0} : unit_dc;
      dn[unit] = is_start ? L{0} : unit_dn;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        own[k * gate_row + unit] = result[k];
        const std::int64_t place = (at * 4 + k) * s.units + unit;
        a.dgates[place] = result[k];
        if (a.added_dgates != nullptr) a.added_dgates[place] += result[k];
      }
    }
    __syncthreads();
    for (int unit = first; unit * 4 < s.lines; unit += step) {
      const int line = unit * 4 + gate;
      L sum = matrix.times(s, line, column(line), s.units, own + gate * gate_row, L{0});
      sum += __shfl_xor_sync(kFullWarp, sum, 1);
      sum += __shfl_xor_sync(kFullWarp, sum, 2);
      // Read again by this very thread only.
      if (gate == 0 && unit < s.units) dh[unit] = is_start ? L{0} : sum;
    }
  }
  if (gate != 0) return;
  for (int unit = first; unit < s.units; unit += step) {
    if (a.dbefore.h != nullptr) contribute(a.dbefore.h + state + unit, dh[unit], a.add_h);
    if (a.dbefore.c != nullptr) contribute(a.dbefore.c + state + unit, dc[unit], a.add_c);
    if (a.dbefore.n != nullptr) contribute(a.dbefore.n + state + unit, dn[unit], a.add_n);
  }
}

}  // namespace bireme::cuda
