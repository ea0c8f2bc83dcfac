// Root-mean-square normalisation on the CPU, for norm_cpu.cpp. Included once for each instruction set, see
// core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_NORM_RMS_NORM_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_NORM_RMS_NORM_CPU_H_
#undef BIREME_CORE_OPS_NORM_RMS_NORM_CPU_H_
#else
#define BIREME_CORE_OPS_NORM_RMS_NORM_CPU_H_
#endif

#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/ops/norm/norm_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

/// A row of x, or of the sum that x and the branch make on the way; returns r.
template <class X, class Y>
Lane<X> rms_norm_row(const X* x, const Y* branch, X* x_sum, const Lane<X>* gain, Y* y, std::int64_t channels,
                     float epsilon) {
  using L = Lane<X>;
  const Lanes<X> d;
  auto squares = hn::Zero(d);
  if (branch != nullptr) {
    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
      const auto v = hn::Add(load(d, branch + c, part), load(d, x + c, part));
      store(d, v, x_sum + c, part);
      squares = hn::MulAdd(v, v, squares);
    });
    x = x_sum;
  } else {
    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
      const auto v = load(d, x + c, part);
      squares = hn::MulAdd(v, v, squares);
    });
  }
  const L reciprocal = L{1} / std::sqrt(sum(d, squares) / static_cast<L>(channels) + static_cast<L>(epsilon));
  const auto scale = hn::Set(d, reciprocal);
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    auto normal = hn::Mul(load(d, x + c, part), scale);
    if constexpr (std::is_same_v<Y, bf16>) {
      store(d, normal, y + c, part);
      normal = load(d, y + c, part);
    }
    store(d, hn::Mul(normal, load(d, gain + c, part)), y + c, part);
  });
  return reciprocal;
}

template <class X, class Y>
void rms_norm_forward(const RmsNormForward& a) {
  using L = Lane<X>;
  const std::int64_t channels = a.x.channels();
  parallel_rows(a.x.rows(), 2 * channels * std::int64_t{sizeof(X) + sizeof(Y)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) {
                    const std::int64_t at = r * channels;
                    a.reciprocal.data<L>()[r] =
                        rms_norm_row<X, Y>(a.x.data<X>() + at, a.branch ? a.branch.data<Y>() + at : nullptr,
                                           a.x_sum ? a.x_sum.data<X>() + at : nullptr, a.gain.data<L>(),
                                           a.y.data<Y>() + at, channels, a.epsilon);
                  }
                });
}

/// Adds row r to dgain, and writes its dx and dbranch: two passes over a row that stays in L1.
template <class X, class Y>
void rms_norm_backward_row(const RmsNormBackward& a, std::int64_t r, Lane<X>* dgain) {
  using L = Lane<X>;
  const Lanes<X> d;
  const std::int64_t channels = a.x.channels(), at = r * channels;
  const X* x = a.x.data<X>() + at;
  const Y* dy = a.dy.data<Y>() + at;
  const L *gain = a.gain.data<L>(), reciprocal = a.reciprocal.data<L>()[r];
  const auto scale = hn::Set(d, reciprocal);
  auto products = hn::Zero(d);
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    const auto g = hn::Mul(load(d, dy + c, part), load(d, x + c, part));
    store(d, hn::MulAdd(g, scale, load(d, dgain + c, part)), dgain + c, part);
    products = hn::MulAdd(g, load(d, gain + c, part), products);
  });
  if (!a.dx && !a.dbranch) return;
  const auto along = hn::Set(d, sum(d, products) / static_cast<L>(channels) * reciprocal * reciprocal);
  const X* direct = a.direct ? a.direct.data<X>() + at : nullptr;
  X* to = a.dx ? a.dx.tensor.data<X>() + at : nullptr;
  Y* to_branch = a.dbranch ? a.dbranch.tensor.data<Y>() + at : nullptr;
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    const auto u = hn::Mul(load(d, dy + c, part), load(d, gain + c, part));
    auto dx = hn::Mul(scale, hn::NegMulAdd(load(d, x + c, part), along, u));
    if (direct != nullptr) dx = hn::Add(dx, load(d, direct + c, part));
    if (to != nullptr) put(d, dx, to + c, a.dx.accumulate, part);
    if (to_branch != nullptr) put(d, dx, to_branch + c, a.dbranch.accumulate, part);
  });
}

template <class X, class Y>
void rms_norm_backward(const RmsNormBackward& a, Memory& memory) {
  PartialSums<Lane<X>> sums(memory, a.x.rows(), a.x.channels());
  sums.over_rows([&](std::int64_t begin, std::int64_t end, Lane<X>* line) {
    for (std::int64_t r = begin; r < end; ++r) rms_norm_backward_row<X, Y>(a, r, line);
  });
  sums.total(0, a.x.channels(), a.dgain);
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
