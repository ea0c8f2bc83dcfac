// The mLSTM's way forward on the CPU, for mlstm_cpu.cpp. Included once for each instruction set, see
// core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_MLSTM_MLSTM_FORWARD_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_MLSTM_MLSTM_FORWARD_CPU_H_
#undef BIREME_CORE_OPS_MLSTM_MLSTM_FORWARD_CPU_H_
#else
#define BIREME_CORE_OPS_MLSTM_MLSTM_FORWARD_CPU_H_
#endif

#include "core/ops/mlstm/mlstm_chunk_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

/// b and w of a chunk.
template <class F>
void mlstm_gates(const MlstmForward& a, const MlstmChunk& at) {
  const MlstmSizes& s = a.sizes;
  const MlstmLine<F> line(s, a.saved, at.line);
  const MlstmDocuments documents(a.starts, s, at);
  const F* gates = a.gates.data<F>() + at.row * 2 * s.heads + at.head;
  // In fp64: shut gates sum to thousands, and the exponents are differences of these sums.
  double sum = 0;
  for (std::int64_t t = 0; t < at.length; ++t, gates += 2 * s.heads) {
    if (documents.starts_at(t)) sum = 0;
    sum += double{cpu::log_sigmoid(gates[s.heads])};
    line.sums[at.time + t] = static_cast<F>(sum);
    line.weights[at.time + t] = static_cast<F>(double{gates[0]} - sum);
  }
}

/// What the chunk's last document adds to the state: Σ exp(w_s - largest w)·k_s·v_sᵀ, left where the state
/// after the chunk will be, and that largest w where its m will be.
template <class T>
void mlstm_contribution(const MlstmForward& a, const MlstmChunk& at) {
  using F = Lane<T>;
  const Lanes<T> d;
  const MlstmSizes& s = a.sizes;
  const MlstmLine<F> line(s, a.saved, at.line);
  const std::int64_t start = MlstmDocuments(a.starts, s, at).last_start(at.length - 1);
  const std::int64_t first = std::max<std::int64_t>(start, 0), rows = at.length - first;
  const std::int64_t key_width = panel_width(s.keys), value_width = panel_width(s.values);
  static thread_local std::vector<F> memory;
  const auto [keys, values] = carve_panels(memory, {rows * key_width, rows * value_width});

  const F* w = line.weights + at.time + first;
  F top = start >= 0 ? F{0} : -std::numeric_limits<F>::infinity();  // a document begins with m = 0
  for (std::int64_t t = 0; t < rows; ++t) top = std::max(top, w[t]);
  line.maxima[at.number + 1] = top;

  const std::int64_t row = at.row + first, key_stride = s.heads * s.keys, value_stride = s.heads * s.values;
  const T* k = a.k.data<T>() + row * key_stride + at.head * s.keys;
  F* n = line.normalizer(at.number + 1);
  std::fill(n, n + key_width, F{0});
  for (std::int64_t t = 0; t < rows; ++t) {
    const F weight = w[t] == -std::numeric_limits<F>::infinity() ? F{0} : std::exp(w[t] - top);
    gather_rows(d, k + t * key_stride, key_stride, 1, s.keys, weight, keys + t * key_width, key_width);
    add_scaled(d, F{1}, keys + t * key_width, n, key_width);
  }
  gather_rows(d, a.v.data<T>() + row * value_stride + at.head * s.values, value_stride, rows, s.values, F{1},
              values, value_width);
  small_product<false>(d, s.keys, value_width, rows, Strided<F>{keys, 1, key_width}, values, value_width,
                       line.memory(at.number + 1), value_width);
}

/// Carries the state of one head through its chunks: the only part that runs in sequence.
template <class F>
void mlstm_carry(const MlstmForward& a, std::int64_t index) {
  const hn::ScalableTag<F> d;
  const MlstmSizes& s = a.sizes;
  const MlstmLine<F> line(s, a.saved, index);
  const std::int64_t value_width = panel_width(s.values);
  std::fill(line.states, line.states + s.state(), F{0});
  line.maxima[0] = 0;
  if (a.memory.defined()) {
    gather_rows(d, a.memory.data<F>() + index * s.keys * s.values, s.values, s.keys, s.values, F{1},
                line.memory(0), value_width);
    std::copy_n(a.normalizer.data<F>() + index * s.keys, s.keys, line.normalizer(0));
    line.maxima[0] = a.maximum.data<F>()[index];
  }
  for (std::int64_t c = 0; c < s.chunks(); ++c) {
    const MlstmChunk at = mlstm_chunk(s, index, c);
    const F sum = line.sums[at.time + at.length - 1], largest = line.maxima[c + 1];
    if (MlstmDocuments(a.starts, s, at).last_start(at.length - 1) >= 0) {
      line.maxima[c + 1] = sum + largest;
      continue;
    }
    const F top = std::max(line.maxima[c], largest);
    const auto old = hn::Set(d, std::exp(line.maxima[c] - top)), fresh = hn::Set(d, std::exp(largest - top));
    const F* before = line.memory(c);
    F* after = line.memory(c + 1);
    for (std::int64_t i = 0; i < s.state(); i += lanes_of(d))
      hn::StoreU(hn::MulAdd(old, hn::LoadU(d, before + i), hn::Mul(fresh, hn::LoadU(d, after + i))), d,
                 after + i);
    line.maxima[c + 1] = sum + top;
  }
  const std::int64_t last = s.chunks();
  for (std::int64_t i = 0; i < s.keys; ++i)
    std::copy_n(line.memory(last) + i * value_width, s.values,
                a.memory_out.data<F>() + (index * s.keys + i) * s.values);
  std::copy_n(line.normalizer(last), s.keys, a.normalizer_out.data<F>() + index * s.keys);
  a.maximum_out.data<F>()[index] = line.maxima[last];
}

/// h of a chunk, from the state before it and its own positions.
template <class T>
void mlstm_outputs(const MlstmForward& a, const MlstmChunk& at) {
  using F = Lane<T>;
  const Lanes<T> d;
  const MlstmSizes& s = a.sizes;
  const MlstmLine<F> line(s, a.saved, at.line);
  const MlstmDocuments documents(a.starts, s, at);
  const std::int64_t key_width = panel_width(s.keys), value_width = panel_width(s.values),
                     wide = panel_width(at.length);
  static thread_local std::vector<F> memory;
  const auto [queries, keys, values, scores, row_weights, w, out] =
      carve_panels(memory, {at.length * key_width, s.keys * wide, at.length * value_width, kScoreRows * wide,
                            wide, wide, kScoreRows * value_width});

  const std::int64_t key_stride = s.heads * s.keys, value_stride = s.heads * s.values;
  const std::int64_t key_offset = at.row * key_stride + at.head * s.keys,
                     value_offset = at.row * value_stride + at.head * s.values;
  gather_rows(d, a.q.data<T>() + key_offset, key_stride, at.length, s.keys,
              1 / std::sqrt(static_cast<F>(s.keys)), queries, key_width);
  gather_transposed(a.k.data<T>() + key_offset, key_stride, at.length, s.keys, keys, wide);
  gather_rows(d, a.v.data<T>() + value_offset, value_stride, at.length, s.values, F{1}, values, value_width);
  copy_weights(line.weights + at.time, at.length, w);

  const F* n = line.normalizer(at.number);
  F top = line.maxima[at.number];
  std::int64_t first = 0;
  bool carried = true;  // whether the state before the chunk belongs to the document
  for (std::int64_t begin = 0; begin < at.length; begin += kScoreRows) {
    const std::int64_t rows = std::min(kScoreRows, at.length - begin), end = panel_width(begin + rows);
    small_product<false>(d, rows, end, s.keys, Strided<F>{queries + begin * key_width, key_width, 1}, keys,
                         wide, scores, wide);
    F factors[kScoreRows];
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t t = begin + i;
      if (documents.starts_at(t)) {
        first = t;
        top = 0;
        carried = false;
      }
      top = std::max(top, w[t]);
      line.tops[at.time + t] = top;
      weight_row(d, w, top, first, t, end, row_weights);
      auto total = hn::Zero(d);
      for (std::int64_t j = 0; j < end; j += lanes_of(d)) {
        const auto weighed = hn::Mul(hn::LoadU(d, scores + i * wide + j), hn::LoadU(d, row_weights + j));
        hn::StoreU(weighed, d, scores + i * wide + j);
        total = hn::Add(total, weighed);
      }
      const F beta = carried ? std::exp(line.maxima[at.number] - top) : F{0};
      F* q = queries + t * key_width;
      set_scaled(d, beta, q, q, key_width);
      const F normalizer = panel_dot(d, q, n, key_width) + sum(d, total);
      const F floor = std::exp(-(line.sums[at.time + t] + top));
      const bool above = std::abs(normalizer) > floor;
      const F denominator = (above ? std::abs(normalizer) : floor) + static_cast<F>(a.epsilon);
      line.denominators[at.time + t] = denominator;
      line.slopes[at.time + t] = above ? std::copysign(F{1}, normalizer) : F{0};
      factors[i] = 1 / denominator;
    }
    small_product<false>(d, rows, value_width, s.keys, Strided<F>{queries + begin * key_width, key_width, 1},
                         line.memory(at.number), value_width, out, value_width);
    small_product<true>(d, rows, value_width, begin + rows, Strided<F>{scores, wide, 1}, values, value_width,
                        out, value_width);
    for (std::int64_t i = 0; i < rows; ++i) {
      const auto factor = hn::Set(d, factors[i]);
      T* h = a.h.data<T>() + value_offset + (begin + i) * value_stride;
      for_vectors(d, s.values, [&](std::int64_t c, auto part) HWY_ATTR {
        store(d, hn::Mul(factor, hn::LoadU(d, out + i * value_width + c)), h + c, part);
      });
    }
  }
}

template <class T>
void mlstm_forward(const MlstmForward& a) {
  using F = Lane<T>;
  for_each_mlstm_chunk(a.sizes, [&](const MlstmChunk& at) {
    mlstm_gates<F>(a, at);
    mlstm_contribution<T>(a, at);
  });
  const std::int64_t lines = a.sizes.sequences * a.sizes.heads;
#pragma omp parallel for schedule(dynamic, 1) if (lines > 1)
  for (std::int64_t line = 0; line < lines; ++line) mlstm_carry<F>(a, line);
  for_each_mlstm_chunk(a.sizes, [&](const MlstmChunk& at) { mlstm_outputs<T>(a, at); });
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
