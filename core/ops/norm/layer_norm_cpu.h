// Layer normalisation on the CPU, for norm_cpu.cpp. Included once for each instruction set, see
// core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_NORM_LAYER_NORM_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_NORM_LAYER_NORM_CPU_H_
#undef BIREME_CORE_OPS_NORM_LAYER_NORM_CPU_H_
#else
#define BIREME_CORE_OPS_NORM_LAYER_NORM_CPU_H_
#endif

#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/ops/norm/norm_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

template <class L>
struct RowStatistics {
  L mean, reciprocal;
};

/// Two passes over a row that the first brings into L1: E[x²] - E[x]² would cancel.
template <class X>
RowStatistics<Lane<X>> row_statistics(const X* x, std::int64_t channels, float epsilon) {
  using L = Lane<X>;
  const Lanes<X> d;
  auto total = hn::Zero(d);
  for_vectors(d, channels,
              [&](std::int64_t c, auto part) HWY_ATTR { total = hn::Add(total, load(d, x + c, part)); });
  const L mean = sum(d, total) / static_cast<L>(channels);
  auto squares = hn::Zero(d);
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    const auto difference = keep(d, hn::Sub(load(d, x + c, part), hn::Set(d, mean)), part);
    squares = hn::MulAdd(difference, difference, squares);
  });
  return {mean, L{1} / std::sqrt(sum(d, squares) / static_cast<L>(channels) + static_cast<L>(epsilon))};
}

template <class X, class Y>
RowStatistics<Lane<X>> layer_norm_row(const X* x, const Lane<X>* gain, const Lane<X>* bias, Y* y,
                                      std::int64_t channels, float epsilon) {
  const Lanes<X> d;
  const auto statistics = row_statistics(x, channels, epsilon);
  const auto mean = hn::Set(d, statistics.mean), reciprocal = hn::Set(d, statistics.reciprocal);
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    const auto normal = hn::Mul(hn::Sub(load(d, x + c, part), mean), reciprocal);
    store(d, hn::MulAdd(normal, load(d, gain + c, part), load(d, bias + c, part)), y + c, part);
  });
  return statistics;
}

template <class X, class Y>
void layer_norm_forward(const LayerNormForward& a) {
  using L = Lane<X>;
  const std::int64_t channels = a.x.channels();
  parallel_rows(
      a.x.rows(), channels * std::int64_t{sizeof(X) + sizeof(Y)}, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const auto row = layer_norm_row(a.x.data<X>() + r * channels, a.gain.data<L>(), a.bias.data<L>(),
                                          a.y.data<Y>() + r * channels, channels, a.epsilon);
          a.mean.data<L>()[r] = row.mean;
          a.reciprocal.data<L>()[r] = row.reciprocal;
        }
      });
}

template <class X, class Y>
void residual_layer_norm_forward(const ResidualNormForward& a) {
  using L = Lane<X>;
  const Lanes<X> d;
  const std::int64_t channels = a.x.channels();
  parallel_rows(a.x.rows(), 2 * channels * std::int64_t{sizeof(X) + sizeof(Y)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) {
                    const X* x = a.x.data<X>() + r * channels;
                    const Y* branch = a.branch.data<Y>() + r * channels;
                    X* x_sum = a.x_sum.data<X>() + r * channels;
                    const auto scale = hn::Set(d, a.scale ? a.scale.data<L>()[r] : L{1});
                    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                      store(d, hn::MulAdd(scale, load(d, branch + c, part), load(d, x + c, part)), x_sum + c,
                            part);
                    });
                    const auto row = layer_norm_row(x_sum, a.gain.data<L>(), a.bias.data<L>(),
                                                    a.y.data<Y>() + r * channels, channels, a.epsilon);
                    a.mean.data<L>()[r] = row.mean;
                    a.reciprocal.data<L>()[r] = row.reciprocal;
                  }
                });
}

/// What backward needs of one row.
template <class X, class Y>
struct LayerNormRow {
  using L = Lane<X>;
  const Y* dy;
  const X* x;
  const L* gain;
  L mean, reciprocal, scale;
  const X* direct;  // or null
  X* dx;            // or null
  Y* dbranch;       // or null
};

/// Adds the row to dgain and dbias, and writes its dx and dbranch: two passes over a row that stays in L1.
template <class X, class Y>
void layer_norm_backward_row(const LayerNormRow<X, Y>& row, std::int64_t channels, bool add_dx,
                             bool add_dbranch, Lane<X>* dgain, Lane<X>* dbias) {
  using L = Lane<X>;
  const Lanes<X> d;
  const auto mean = hn::Set(d, row.mean), reciprocal = hn::Set(d, row.reciprocal);
  auto g_sum = hn::Zero(d), gx_sum = hn::Zero(d);  // lanes past the end have dy = 0 and add nothing
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    const auto dy = load(d, row.dy + c, part);
    const auto normal = hn::Mul(hn::Sub(load(d, row.x + c, part), mean), reciprocal);
    const auto g = hn::Mul(dy, load(d, row.gain + c, part));
    store(d, hn::MulAdd(dy, normal, load(d, dgain + c, part)), dgain + c, part);
    store(d, hn::Add(dy, load(d, dbias + c, part)), dbias + c, part);
    g_sum = hn::Add(g_sum, g);
    gx_sum = hn::MulAdd(g, normal, gx_sum);
  });
  if (row.dx == nullptr && row.dbranch == nullptr) return;
  const auto g_mean = hn::Set(d, sum(d, g_sum) / static_cast<L>(channels));
  const auto gx_mean = hn::Set(d, sum(d, gx_sum) / static_cast<L>(channels));
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    const auto normal = hn::Mul(hn::Sub(load(d, row.x + c, part), mean), reciprocal);
    const auto g = hn::Mul(load(d, row.dy + c, part), load(d, row.gain + c, part));
    auto dx = hn::Mul(reciprocal, hn::NegMulAdd(normal, gx_mean, hn::Sub(g, g_mean)));
    if (row.direct != nullptr) dx = hn::Add(dx, load(d, row.direct + c, part));
    if (row.dx != nullptr) put(d, dx, row.dx + c, add_dx, part);
    if (row.dbranch != nullptr)
      put(d, hn::Mul(dx, hn::Set(d, row.scale)), row.dbranch + c, add_dbranch, part);
  });
}

template <class X, class Y>
void layer_norm_backward(const LayerNormBackward& a, Memory& memory) {
  using L = Lane<X>;
  const std::int64_t channels = a.x.channels();
  const auto row_of = [channels]<class T>(const Tensor& tensor, std::int64_t r, Type<T>) -> T* {
    return tensor ? tensor.data<T>() + r * channels : nullptr;
  };
  PartialSums<L> sums(memory, a.x.rows(), 2 * channels);
  sums.over_rows([&](std::int64_t begin, std::int64_t end, L* line) {
    for (std::int64_t r = begin; r < end; ++r) {
      const LayerNormRow<X, Y> row{.dy = a.dy.data<Y>() + r * channels,
                                   .x = a.x.data<X>() + r * channels,
                                   .gain = a.gain.data<L>(),
                                   .mean = a.mean.data<L>()[r],
                                   .reciprocal = a.reciprocal.data<L>()[r],
                                   .scale = a.scale ? a.scale.data<L>()[r] : L{1},
                                   .direct = row_of(a.direct, r, Type<X>{}),
                                   .dx = row_of(a.dx.tensor, r, Type<X>{}),
                                   .dbranch = row_of(a.dbranch.tensor, r, Type<Y>{})};
      layer_norm_backward_row(row, channels, a.dx.accumulate, a.dbranch.accumulate, line, line + channels);
    }
  });
  sums.total(0, channels, a.dgain);
  sums.total(channels, channels, a.dbias);
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
