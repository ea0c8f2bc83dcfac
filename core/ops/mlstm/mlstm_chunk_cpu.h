// What all passes over a chunk of the mLSTM share, for mlstm_cpu.cpp. Included once for each instruction set,
// see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_MLSTM_MLSTM_CHUNK_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_MLSTM_MLSTM_CHUNK_CPU_H_
#undef BIREME_CORE_OPS_MLSTM_MLSTM_CHUNK_CPU_H_
#else
#define BIREME_CORE_OPS_MLSTM_MLSTM_CHUNK_CPU_H_
#endif

#include <limits>
#include <vector>

#include "core/cpu/logistic.h"
#include "core/cpu/panels-inl.h"
#include "core/cpu/simd.h"
#include "core/cpu/small_products-inl.h"
#include "core/ops/mlstm/mlstm_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

/// Rows of scores that are computed together: what lies right of the last of them is skipped.
constexpr std::int64_t kScoreRows = 24;

/// One chunk of one head of one sequence.
struct MlstmChunk {
  std::int64_t line;  // sequence · H + head
  std::int64_t head, number;
  std::int64_t row;   // of its first position, in [B·T]
  std::int64_t time;  // of its first position, in the sequence
  std::int64_t length;
};

inline MlstmChunk mlstm_chunk(const MlstmSizes& s, std::int64_t line, std::int64_t number) {
  const std::int64_t begin = number * s.chunk;
  return {.line = line,
          .head = line % s.heads,
          .number = number,
          .row = line / s.heads * s.time + begin,
          .time = begin,
          .length = std::min(s.chunk, s.time - begin)};
}

/// Calls f(chunk) for every chunk of every head. Chunks are independent here: any split over threads gives
/// the same bits.
template <class F>
void for_each_mlstm_chunk(const MlstmSizes& s, F&& f) {
  const std::int64_t chunks = s.chunks(), tasks = s.sequences * s.heads * chunks;
#pragma omp parallel for schedule(dynamic, 1) if (tasks > 1)
  for (std::int64_t task = 0; task < tasks; ++task) f(mlstm_chunk(s, task / chunks, task % chunks));
}

/// Kept tensors of one line (head of a sequence).
template <class F>
struct MlstmLine {
  MlstmSizes sizes;
  F *states, *maxima, *sums, *weights, *tops, *denominators, *slopes;

  MlstmLine(const MlstmSizes& s, const MlstmSaved& saved, std::int64_t line)
      : sizes(s),
        states(saved.states.data<F>() + line * (s.chunks() + 1) * s.state()),
        maxima(saved.maxima.data<F>() + line * (s.chunks() + 1)),
        sums(saved.gates.data<F>() + line * 3 * s.time),
        weights(sums + s.time),
        tops(weights + s.time),
        denominators(saved.denominator.data<F>() + line * s.time),
        slopes(saved.slope.data<F>() + line * s.time) {}

  F* memory(std::int64_t chunk) const { return states + chunk * sizes.state(); }
  F* normalizer(std::int64_t chunk) const {
    return memory(chunk) + sizes.keys * MlstmSizes::padded(sizes.values);
  }
};

/// The first position, within the chunk, of each position's document: 0 also for one that began earlier.
struct MlstmDocuments {
  const std::uint8_t* starts;  // of the chunk's first position, or null

  MlstmDocuments(const Tensor& tensor, const MlstmSizes& s, const MlstmChunk& at)
      : starts(tensor.defined() ? tensor.data<std::uint8_t>() + at.line / s.heads * s.time + at.time
                                : nullptr) {}
  bool starts_at(std::int64_t t) const { return starts != nullptr && starts[t] != 0; }
  /// The last start at or before position t, or -1.
  std::int64_t last_start(std::int64_t t) const {
    if (starts == nullptr) return -1;
    while (t >= 0 && starts[t] == 0) --t;
    return t;
  }
};

/// row[s] = exp(w_s - top) for first ≤ s ≤ last, and 0 elsewhere in [begin, end).
template <class D, class F = hn::TFromD<D>>
HWY_INLINE void weight_row(D d, const F* w, F top, std::int64_t first, std::int64_t last, std::int64_t end,
                           F* row) {
  const std::int64_t lanes = lanes_of(d);
  const auto shift = hn::Set(d, top);
  for (std::int64_t s = 0; s < end; s += lanes) {
    if (s > last || s + lanes <= first) {
      hn::StoreU(hn::Zero(d), d, row + s);
      continue;
    }
    auto weight = exp(d, hn::Sub(hn::LoadU(d, w + s), shift));
    if (s + lanes > last + 1)
      weight = hn::IfThenElseZero(hn::FirstN(d, static_cast<std::size_t>(last + 1 - s)), weight);
    if (s < first) weight = hn::IfThenZeroElse(hn::FirstN(d, static_cast<std::size_t>(first - s)), weight);
    hn::StoreU(weight, d, row + s);
  }
}

/// The chunk's w, padded with 0 to a panel row, which weight_row reads whole.
template <class F>
void copy_weights(const F* from, std::int64_t length, F* to) {
  std::copy_n(from, length, to);
  std::fill(to + length, to + panel_width(length), F{0});
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
