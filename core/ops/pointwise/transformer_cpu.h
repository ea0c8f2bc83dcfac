// Gated products and rotary position embeddings on the CPU, for pointwise_cpu.cpp. Included once for each
// instruction set, see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_POINTWISE_TRANSFORMER_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_POINTWISE_TRANSFORMER_CPU_H_
#undef BIREME_CORE_OPS_POINTWISE_TRANSFORMER_CPU_H_
#else
#define BIREME_CORE_OPS_POINTWISE_TRANSFORMER_CPU_H_
#endif

#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/pointwise/pointwise_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

/// 1 / (1 + exp(-x)), from the exponential that cannot overflow.
template <class D>
HWY_INLINE hn::Vec<D> logistic(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, hn::TFromD<D>{1}), e = exp(d, hn::Neg(hn::Abs(x)));
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

template <class T>
void silu_gate_forward(const SiluGateForward &a) {
  const Lanes<T> d;
  const std::int64_t width = a.y.channels();
  parallel_rows(a.y.rows(), 3 * width * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T *gate = a.x.data<T>() + 2 * r * width, *up = gate + width;
      T *y = a.y.data<T>() + r * width;
      for_vectors(d, width, [&](std::int64_t c, auto part) HWY_ATTR {
        const auto v = load(d, gate + c, part);
        store(d, hn::Mul(hn::Mul(v, logistic(d, v)), load(d, up + c, part)), y + c, part);
      });
    }
  });
}

template <class T>
void silu_gate_backward(const SiluGateBackward &a) {
  const Lanes<T> d;
  const std::int64_t width = a.dy.channels();
  const auto one = hn::Set(d, Lane<T>{1});
  parallel_rows(a.dy.rows(), 5 * width * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T *gate = a.x.data<T>() + 2 * r * width, *up = gate + width, *dy = a.dy.data<T>() + r * width;
      T *dgate = a.dx.tensor.data<T>() + 2 * r * width, *dup = dgate + width;
      for_vectors(d, width, [&](std::int64_t c, auto part) HWY_ATTR {
        const auto v = load(d, gate + c, part), g = load(d, dy + c, part), s = logistic(d, v);
        const auto slope = hn::Mul(s, hn::MulAdd(v, hn::Sub(one, s), one));
        put(d, hn::Mul(hn::Mul(g, load(d, up + c, part)), slope), dgate + c, a.dx.accumulate, part);
        put(d, hn::Mul(g, hn::Mul(v, s)), dup + c, a.dx.accumulate, part);
      });
    }
  });
}

template <class T>
void rotate_rows(const Rotate &a) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t half = a.table.cosines.channels(), channels = a.x.channels();
  const auto sign = hn::Set(d, a.backwards ? L{-1} : L{1});
  parallel_rows(
      a.x.rows(), 2 * channels * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const std::int64_t angle = a.positions.data<std::int32_t>()[r] * half;
          const L *cosines = a.table.cosines.data<L>() + angle, *sines = a.table.sines.data<L>() + angle;
          for (std::int64_t head = 0; head < a.heads; ++head) {
            T *low = a.x.data<T>() + r * channels + 2 * head * half, *high = low + half;
            for_vectors(d, half, [&](std::int64_t j, auto part) HWY_ATTR {
              const auto cosine = load(d, cosines + j, part), sine = hn::Mul(sign, load(d, sines + j, part));
              const auto x = load(d, low + j, part), y = load(d, high + j, part);
              store(d, hn::NegMulAdd(y, sine, hn::Mul(x, cosine)), low + j, part);
              store(d, hn::MulAdd(x, sine, hn::Mul(y, cosine)), high + j, part);
            });
          }
        }
      });
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
