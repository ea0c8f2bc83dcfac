// The mLSTM's way back on the CPU, for mlstm_cpu.cpp. Included once for each instruction set, see
// core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_MLSTM_MLSTM_BACKWARD_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_MLSTM_MLSTM_BACKWARD_CPU_H_
#undef BIREME_CORE_OPS_MLSTM_MLSTM_BACKWARD_CPU_H_
#else
#define BIREME_CORE_OPS_MLSTM_MLSTM_BACKWARD_CPU_H_
#endif

#include "core/ops/mlstm/mlstm_chunk_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

/// Gradients of the states, laid out as MlstmSaved::states.
template <class F>
struct MlstmGradients {
  Tensor states;  // [B, H, N + 1, sizes.state()]

  F* state(const MlstmSizes& s, std::int64_t line, std::int64_t chunk) const {
    return states.data<F>() + (line * (s.chunks() + 1) + chunk) * s.state();
  }
};

/// N and λ of the chunk's positions: what reaches numerator and normaliser.
template <class T, class F = Lane<T>>
void mlstm_output_gradients(const MlstmBackward& a, const MlstmChunk& at, F* numerator, F* normalizer) {
  const Lanes<T> d;
  const MlstmSizes& s = a.sizes;
  const MlstmLine<F> line(s, a.saved, at.line);
  const std::int64_t width = panel_width(s.values), stride = s.heads * s.values;
  const T* dh = a.dh.data<T>() + at.row * stride + at.head * s.values;
  const T* h = a.h.data<T>() + at.row * stride + at.head * s.values;
  for (std::int64_t t = 0; t < at.length; ++t) {
    const F factor = 1 / line.denominators[at.time + t];
    gather_rows(d, dh + t * stride, stride, 1, s.values, factor, numerator + t * width, width);
    auto product = hn::Zero(d);
    if (a.normalizer_gradient && line.slopes[at.time + t] != 0)
      for_vectors(d, s.values, [&](std::int64_t c, auto part) HWY_ATTR {
        product =
            hn::MulAdd(hn::LoadU(d, numerator + t * width + c), load(d, h + t * stride + c, part), product);
      });
    normalizer[t] = -line.slopes[at.time + t] * sum(d, product);
  }
}

/// How much of the state before the chunk is in that of position t, for as long as its document is the same.
template <class F>
F carried_weight(const MlstmLine<F>& line, const MlstmChunk& at, std::int64_t t) {
  return std::exp(line.maxima[at.number] - line.tops[at.time + t]);
}

/// The part of the gradient of the state before the chunk that comes from the chunk's outputs.
template <class T>
void mlstm_state_contribution(const MlstmBackward& a, const MlstmGradients<Lane<T>>& gradients,
                              const MlstmChunk& at) {
  using F = Lane<T>;
  const Lanes<T> d;
  const MlstmSizes& s = a.sizes;
  const MlstmLine<F> line(s, a.saved, at.line);
  const MlstmDocuments documents(a.starts, s, at);
  const std::int64_t key_width = panel_width(s.keys), value_width = panel_width(s.values);
  static thread_local std::vector<F> memory;
  const auto [queries, numerator, normalizer] =
      carve_panels(memory, {at.length * key_width, at.length * value_width, at.length});
  mlstm_output_gradients<T>(a, at, numerator, normalizer);

  F* dmemory = gradients.state(s, at.line, at.number);
  F* dnormalizer = dmemory + s.keys * value_width;
  std::fill(dnormalizer, dnormalizer + key_width, F{0});
  const std::int64_t stride = s.heads * s.keys;
  const F scale = 1 / std::sqrt(static_cast<F>(s.keys));
  std::int64_t rows = 0;
  for (; rows < at.length && !documents.starts_at(rows); ++rows) {
    F* q = queries + rows * key_width;
    gather_rows(d, a.q.data<T>() + (at.row + rows) * stride + at.head * s.keys, stride, 1, s.keys,
                scale * carried_weight(line, at, rows), q, key_width);
    add_scaled(d, normalizer[rows], q, dnormalizer, key_width);
  }
  small_product<false>(d, s.keys, value_width, rows, Strided<F>{queries, 1, key_width}, numerator,
                       value_width, dmemory, value_width);
}

/// Carries the gradient of the state of one head back through its chunks.
template <class F>
void mlstm_carry_back(const MlstmBackward& a, const MlstmGradients<F>& gradients, std::int64_t index) {
  const hn::ScalableTag<F> d;
  const MlstmSizes& s = a.sizes;
  const MlstmLine<F> line(s, a.saved, index);
  const std::int64_t value_width = panel_width(s.values), last = s.chunks();
  F* after = gradients.state(s, index, last);
  std::fill(after, after + s.state(), F{0});
  if (a.dmemory_out.defined())
    gather_rows(d, a.dmemory_out.data<F>() + index * s.keys * s.values, s.values, s.keys, s.values, F{1},
                after, value_width);
  if (a.dnormalizer_out.defined())
    std::copy_n(a.dnormalizer_out.data<F>() + index * s.keys, s.keys, after + s.keys * value_width);
  for (std::int64_t c = last; c-- > 0;) {
    const MlstmChunk at = mlstm_chunk(s, index, c);
    F* before = gradients.state(s, index, c);
    // A document that begins in the chunk lets nothing through.
    if (MlstmDocuments(a.starts, s, at).last_start(at.length - 1) < 0)
      add_scaled(d, carried_weight(line, at, at.length - 1), after, before, s.state());
    after = before;
  }
  const auto put_row = [&](const F* from, F* to, std::int64_t count, bool accumulate) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = from[i] + (accumulate ? to[i] : F{0});
  };
  if (a.dmemory)
    for (std::int64_t i = 0; i < s.keys; ++i)
      put_row(after + i * value_width, a.dmemory.tensor.data<F>() + (index * s.keys + i) * s.values, s.values,
              a.dmemory.accumulate);
  if (a.dnormalizer)
    put_row(after + s.keys * value_width, a.dnormalizer.tensor.data<F>() + index * s.keys, s.keys,
            a.dnormalizer.accumulate);
}

/// Working memory of a chunk's way back. Position s lies in rows of keys, values, dkeys, dvalues.
/// Numbers as fp64.
template <class D, class F>
HWY_INLINE hn::Vec<D> load_double(D d, const F* from) {
  if constexpr (std::is_same_v<F, double>) {
    return hn::LoadU(d, from);
  } else {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<F, D>(), from));
  }
}

/// Σ a·b in fp64, of panels.
template <class F>
double precise_dot(const F* a, const F* b, std::int64_t width) {
  const hn::ScalableTag<double> d;
  auto total = hn::Zero(d);
  for (std::int64_t i = 0; i < width; i += lanes_of(d))
    total = hn::MulAdd(load_double(d, a + i), load_double(d, b + i), total);
  return sum(d, total);
}

/// What query t takes from the keys of its row is what they give to it.
template <class F>
void add_flow(const F* row, std::int64_t t, std::int64_t width, double* flow) {
  const hn::ScalableTag<double> d;
  auto total = hn::Zero(d);
  for (std::int64_t j = 0; j < width; j += lanes_of(d)) {
    const auto part = load_double(d, row + j);
    total = hn::Add(total, part);
    hn::StoreU(hn::Sub(hn::LoadU(d, flow + j), part), d, flow + j);
  }
  flow[t] += sum(d, total);
}

template <class F>
struct MlstmPanels {
  double* flow;  // [padded L], Σ (q·dq - k·dk) of each position: what df̃ is summed up from
  F *queries, *keys, *values, *numerator;       // [L, padded dk or dv], queries scaled
  F *keys_t, *values_t, *memory_t, *dmemory_t;  // transposed
  F *dqueries, *dkeys, *dvalues;
  F *kept_keys, *kept_values;  // as the state after the chunk holds them
  F *scores, *dscores;         // [rows, padded L]
  F *row_weights, *w, *normalizer;
};

/// dq of the chunk, and to dk and dv what comes from its own outputs.
template <class T>
void mlstm_inner_gradients(const MlstmBackward& a, const MlstmLine<Lane<T>>& line, const MlstmChunk& at,
                           const MlstmPanels<Lane<T>>& p) {
  using F = Lane<T>;
  const Lanes<T> d;
  const MlstmSizes& s = a.sizes;
  const MlstmDocuments documents(a.starts, s, at);
  const std::int64_t key_width = panel_width(s.keys), value_width = panel_width(s.values),
                     wide = panel_width(at.length);
  const F* n = line.normalizer(at.number);
  std::int64_t first = 0;
  bool carried = true;
  for (std::int64_t begin = 0; begin < at.length; begin += kScoreRows) {
    const std::int64_t rows = std::min(kScoreRows, at.length - begin), end = panel_width(begin + rows),
                       depth = begin + rows;
    F* queries = p.queries + begin * key_width;
    F* numerator = p.numerator + begin * value_width;
    F* dqueries = p.dqueries + begin * key_width;
    small_product<false>(d, rows, end, s.keys, Strided<F>{queries, key_width, 1}, p.keys_t, wide, p.scores,
                         wide);
    for (std::int64_t i = 0; i < rows; ++i)
      std::fill(p.dscores + i * wide, p.dscores + i * wide + end, p.normalizer[begin + i]);
    small_product<true>(d, rows, end, s.values, Strided<F>{numerator, value_width, 1}, p.values_t, wide,
                        p.dscores, wide);
    small_product<false>(d, rows, key_width, s.values, Strided<F>{numerator, value_width, 1}, p.memory_t,
                         key_width, dqueries, key_width);
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t t = begin + i;
      if (documents.starts_at(t)) {
        first = t;
        carried = false;
      }
      weight_row(d, p.w, line.tops[at.time + t], first, t, end, p.row_weights);
      for (std::int64_t j = 0; j < end; j += lanes_of(d)) {
        const auto weight = hn::LoadU(d, p.row_weights + j);
        F *score = p.scores + i * wide + j, *dscore = p.dscores + i * wide + j;
        const auto weighted = hn::Mul(weight, hn::LoadU(d, score));
        hn::StoreU(hn::Mul(weighted, hn::LoadU(d, dscore)), d, p.row_weights + j);
        hn::StoreU(weighted, d, score);
        hn::StoreU(hn::Mul(weight, hn::LoadU(d, dscore)), d, dscore);
      }
      add_flow(p.row_weights, t, end, p.flow);
      F* dq = dqueries + i * key_width;
      add_scaled(d, p.normalizer[t], n, dq, key_width);
      set_scaled(d, carried ? carried_weight(line, at, t) : F{0}, dq, dq, key_width);
      p.flow[t] += panel_dot(d, queries + i * key_width, dq, key_width);
    }
    small_product<true>(d, rows, key_width, depth, Strided<F>{p.dscores, wide, 1}, p.keys, key_width,
                        dqueries, key_width);
    small_product<true>(d, depth, key_width, rows, Strided<F>{p.dscores, 1, wide}, queries, key_width,
                        p.dkeys, key_width);
    small_product<true>(d, depth, value_width, rows, Strided<F>{p.scores, 1, wide}, numerator, value_width,
                        p.dvalues, value_width);
  }
}

/// dk and dv as far as they come through the state after the chunk, into which its last document alone goes.
template <class T>
void mlstm_outer_gradients(const MlstmBackward& a, const MlstmGradients<Lane<T>>& gradients,
                           const MlstmLine<Lane<T>>& line, const MlstmChunk& at,
                           const MlstmPanels<Lane<T>>& p) {
  using F = Lane<T>;
  const Lanes<T> d;
  const MlstmSizes& s = a.sizes;
  const std::int64_t key_width = panel_width(s.keys), value_width = panel_width(s.values);
  const std::int64_t first =
      std::max<std::int64_t>(0, MlstmDocuments(a.starts, s, at).last_start(at.length - 1));
  const F top = line.tops[at.time + at.length - 1];
  const F* dmemory = gradients.state(s, at.line, at.number + 1);
  const F* dnormalizer = dmemory + s.keys * value_width;
  std::fill(p.dkeys, p.dkeys + first * key_width, F{0});
  std::fill(p.dvalues, p.dvalues + first * value_width, F{0});
  for (std::int64_t t = first; t < at.length; ++t) {
    const F weight = std::exp(p.w[t] - top);
    set_scaled(d, weight, p.keys + t * key_width, p.kept_keys + t * key_width, key_width);
    set_scaled(d, weight, p.values + t * value_width, p.kept_values + t * value_width, value_width);
    set_scaled(d, weight, dnormalizer, p.dkeys + t * key_width, key_width);
  }
  const std::int64_t rows = at.length - first;
  small_product<true>(d, rows, key_width, s.values,
                      Strided<F>{p.kept_values + first * value_width, value_width, 1}, p.dmemory_t, key_width,
                      p.dkeys + first * key_width, key_width);
  small_product<false>(d, rows, value_width, s.keys,
                       Strided<F>{p.kept_keys + first * key_width, key_width, 1}, dmemory, value_width,
                       p.dvalues + first * value_width, value_width);
  for (std::int64_t t = first; t < at.length; ++t)
    p.flow[t] -= panel_dot(d, p.keys + t * key_width, p.dkeys + t * key_width, key_width);
}

/// di and df̃ of the chunk. A forget gate sees all that goes from before it to after it: what the state after
/// the chunk hands on, and the flow within the chunk, which cancels. Its terms are therefore the same numbers
/// with both signs, and the sum runs in fp64, chunk by chunk.
template <class T>
void mlstm_gate_gradients(const MlstmBackward& a, const MlstmGradients<Lane<T>>& gradients,
                          const MlstmLine<Lane<T>>& line, const MlstmChunk& at,
                          const MlstmPanels<Lane<T>>& p) {
  using F = Lane<T>;
  const Lanes<T> d;
  const MlstmSizes& s = a.sizes;
  const MlstmDocuments documents(a.starts, s, at);
  const std::int64_t key_width = panel_width(s.keys);
  double total =
      precise_dot(line.memory(at.number + 1), gradients.state(s, at.line, at.number + 1), s.state());
  for (std::int64_t t = at.length; t-- > 0;) {
    F* gates = a.dgates.tensor.data<F>() + (at.row + t) * 2 * s.heads + at.head;
    const auto put_gate = [&](F& gate, F gradient) { gate = gradient + (a.dgates.accumulate ? gate : F{0}); };
    put_gate(gates[0], panel_dot(d, p.keys + t * key_width, p.dkeys + t * key_width, key_width));
    total += p.flow[t];
    const F forget = a.gates.data<F>()[(at.row + t) * 2 * s.heads + s.heads + at.head];
    put_gate(gates[s.heads], cpu::sigmoid(-forget) * static_cast<F>(total));
    if (documents.starts_at(t)) total = 0;
  }
}

template <class D, class T, class F = hn::TFromD<D>>
void scatter_row(D d, const F* from, std::int64_t count, F factor, const Target& target, std::int64_t offset,
                 const T* /*type*/) {
  if (!target) return;
  T* to = target.tensor.data<T>() + offset;
  const auto scale = hn::Set(d, factor);
  for_vectors(d, count, [&](std::int64_t c, auto part) HWY_ATTR {
    put(d, hn::Mul(scale, hn::LoadU(d, from + c)), to + c, target.accumulate, part);
  });
}

template <class T>
void mlstm_chunk_gradients(const MlstmBackward& a, const MlstmGradients<Lane<T>>& gradients,
                           const MlstmChunk& at) {
  using F = Lane<T>;
  const Lanes<T> d;
  const MlstmSizes& s = a.sizes;
  const MlstmLine<F> line(s, a.saved, at.line);
  const std::int64_t L = at.length, key_width = panel_width(s.keys), value_width = panel_width(s.values),
                     wide = panel_width(L);
  static thread_local std::vector<F> memory;
  const auto panels = carve_panels(
      memory, {L * key_width, L * key_width, L * value_width, L * value_width, s.keys * wide, s.values * wide,
               s.values * key_width, s.values * key_width, L * key_width, L * key_width, L * value_width,
               L * key_width, L * value_width, kScoreRows * wide, kScoreRows * wide, wide, wide, wide});
  static thread_local std::vector<double> flow;
  flow.assign(static_cast<std::size_t>(wide), 0);
  const MlstmPanels<F> p{flow.data(), panels[0],  panels[1],  panels[2],  panels[3],  panels[4],  panels[5],
                         panels[6],   panels[7],  panels[8],  panels[9],  panels[10], panels[11], panels[12],
                         panels[13],  panels[14], panels[15], panels[16], panels[17]};

  const std::int64_t key_stride = s.heads * s.keys, value_stride = s.heads * s.values;
  const std::int64_t key_offset = at.row * key_stride + at.head * s.keys,
                     value_offset = at.row * value_stride + at.head * s.values;
  const F scale = 1 / std::sqrt(static_cast<F>(s.keys));
  const T *q = a.q.data<T>() + key_offset, *k = a.k.data<T>() + key_offset, *v = a.v.data<T>() + value_offset;
  gather_rows(d, q, key_stride, L, s.keys, scale, p.queries, key_width);
  gather_rows(d, k, key_stride, L, s.keys, F{1}, p.keys, key_width);
  gather_rows(d, v, value_stride, L, s.values, F{1}, p.values, value_width);
  gather_transposed(p.keys, key_width, L, s.keys, p.keys_t, wide);
  gather_transposed(p.values, value_width, L, s.values, p.values_t, wide);
  gather_transposed(line.memory(at.number), value_width, s.keys, s.values, p.memory_t, key_width);
  gather_transposed(gradients.state(s, at.line, at.number + 1), value_width, s.keys, s.values, p.dmemory_t,
                    key_width);
  copy_weights(line.weights + at.time, L, p.w);
  mlstm_output_gradients<T>(a, at, p.numerator, p.normalizer);

  mlstm_outer_gradients<T>(a, gradients, line, at, p);
  mlstm_inner_gradients<T>(a, line, at, p);
  if (a.dgates) mlstm_gate_gradients<T>(a, gradients, line, at, p);
  for (std::int64_t t = 0; t < L; ++t) {
    scatter_row(d, p.dqueries + t * key_width, s.keys, scale, a.dq, key_offset + t * key_stride, q);
    scatter_row(d, p.dkeys + t * key_width, s.keys, F{1}, a.dk, key_offset + t * key_stride, k);
    scatter_row(d, p.dvalues + t * value_width, s.values, F{1}, a.dv, value_offset + t * value_stride, v);
  }
}

template <class T>
void mlstm_backward(const MlstmBackward& a, Memory& memory) {
  using F = Lane<T>;
  const MlstmSizes& s = a.sizes;
  const MlstmGradients<F> gradients{Tensor(memory, a.saved.states.shape(), a.saved.states.dtype())};
  for_each_mlstm_chunk(s, [&](const MlstmChunk& at) { mlstm_state_contribution<T>(a, gradients, at); });
  const std::int64_t lines = s.sequences * s.heads;
#pragma omp parallel for schedule(dynamic, 1) if (lines > 1)
  for (std::int64_t line = 0; line < lines; ++line) mlstm_carry_back<F>(a, gradients, line);
  for_each_mlstm_chunk(s, [&](const MlstmChunk& at) { mlstm_chunk_gradients<T>(a, gradients, at); });
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
