// Products with a gate on the CPU, for pointwise_cpu.cpp. Included once for each instruction set, see
// core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_POINTWISE_GATES_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_POINTWISE_GATES_CPU_H_
#undef BIREME_CORE_OPS_POINTWISE_GATES_CPU_H_
#else
#define BIREME_CORE_OPS_POINTWISE_GATES_CPU_H_
#endif

#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/ops/pointwise/pointwise_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

/// σ(x) by the exponential that cannot overflow.
template <class D>
HWY_INLINE hn::Vec<D> gate_opening(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, hn::TFromD<D>{1});
  const auto e = exp(d, hn::Neg(hn::Abs(x)));
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

/// An activation and its derivative.
template <class D>
struct Activated {
  hn::Vec<D> value, slope;
};

template <Activation kActivation, class D>
HWY_INLINE Activated<D> activate(D d, hn::Vec<D> x) {
  using F = hn::TFromD<D>;
  const auto zero = hn::Zero(d), one = hn::Set(d, F{1});
  if constexpr (kActivation == Activation::gelu) {
    const auto law = normal(d, x);
    return {hn::Mul(x, law.distribution), hn::MulAdd(x, law.density, law.distribution)};
  } else if constexpr (kActivation == Activation::silu) {
    const auto s = gate_opening(d, x);
    return {hn::Mul(x, s), hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one))};
  } else if constexpr (kActivation == Activation::sigmoid) {
    const auto s = gate_opening(d, x);
    return {s, hn::Mul(s, hn::Sub(one, s))};
  } else if constexpr (kActivation == Activation::selu) {  // Klambauer et al. 2017
    const auto scale = hn::Set(d, static_cast<F>(1.0507009873554805)),
               alpha = hn::Set(d, static_cast<F>(1.6732632423543772 * 1.0507009873554805));
    const auto e = exp(d, hn::Min(x, zero));
    const auto positive = hn::Gt(x, zero);
    return {hn::IfThenElse(positive, hn::Mul(scale, x), hn::Mul(alpha, hn::Sub(e, one))),
            hn::IfThenElse(positive, scale, hn::Mul(alpha, e))};
  } else {
    const auto r = hn::Max(x, zero);
    const auto slope = hn::IfThenElse(hn::Gt(x, zero), one, zero);
    if constexpr (kActivation == Activation::relu) return {r, slope};
    return {hn::Mul(r, r), hn::Add(r, r)};
  }
}

/// Calls f(activation) with the activation as a compile-time constant.
template <class F>
void dispatch_activation(Activation activation, F&& f) {
  using A = Activation;
  const auto call = [&]<A kActivation>(std::integral_constant<A, kActivation> constant) { f(constant); };
  switch (activation) {
    case A::gelu: return call(std::integral_constant<A, A::gelu>{});
    case A::silu: return call(std::integral_constant<A, A::silu>{});
    case A::relu: return call(std::integral_constant<A, A::relu>{});
    case A::squared_relu: return call(std::integral_constant<A, A::squared_relu>{});
    case A::sigmoid: return call(std::integral_constant<A, A::sigmoid>{});
    case A::selu: return call(std::integral_constant<A, A::selu>{});
  }
}

template <class T>
void activation_gate_forward(const ActivationGateForward& a) {
  const Lanes<T> d;
  const std::int64_t width = a.y.channels();
  dispatch_activation(a.activation, [&]<Activation kActivation>(
                                        std::integral_constant<Activation, kActivation>) {
    parallel_rows(a.y.rows(), 3 * width * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* x = a.x.data<T>() + 2 * r * width;
        T* y = a.y.data<T>() + r * width;
        for_vectors(d, width, [&](std::int64_t c, auto part) HWY_ATTR {
          const auto value = activate<kActivation>(d, load(d, x + c, part)).value;
          store(d, hn::Mul(value, load(d, x + width + c, part)), y + c, part);
        });
      }
    });
  });
}

template <class T>
void activation_gate_backward(const ActivationGateBackward& a) {
  const Lanes<T> d;
  const std::int64_t width = a.dy.channels();
  const bool add = a.dx.accumulate;
  dispatch_activation(a.activation, [&]<Activation kActivation>(
                                        std::integral_constant<Activation, kActivation>) {
    parallel_rows(
        a.dy.rows(), 5 * width * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t r = begin; r < end; ++r) {
            const T *x = a.x.data<T>() + 2 * r * width, *dy = a.dy.data<T>() + r * width;
            T* dx = a.dx.tensor.data<T>() + 2 * r * width;
            for_vectors(d, width, [&](std::int64_t c, auto part) HWY_ATTR {
              const auto activated = activate<kActivation>(d, load(d, x + c, part));
              const auto g = load(d, dy + c, part);
              put(d, hn::Mul(hn::Mul(g, load(d, x + width + c, part)), activated.slope), dx + c, add, part);
              put(d, hn::Mul(g, activated.value), dx + width + c, add, part);
            });
          }
        });
  });
}

template <class T>
void skip_gate_forward(const SkipGateForward& a) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.h.channels();
  parallel_rows(
      a.h.rows(), 4 * channels * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const std::int64_t row = r * channels;
          for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
            const auto z = load(d, a.z.data<T>() + row + c, part);
            const auto sum =
                hn::MulAdd(load(d, a.skip.data<L>() + c, part), load(d, a.u.data<T>() + row + c, part),
                           load(d, a.h.data<T>() + row + c, part));
            store(d, hn::Mul(sum, hn::Mul(z, gate_opening(d, z))), a.y.data<T>() + row + c, part);
          });
        }
      });
}

template <class T>
void skip_gate_backward(const SkipGateBackward& a, Memory& memory) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.h.channels();
  PartialSums<L> sums(memory, a.h.rows(), channels);
  sums.over_rows([&](std::int64_t begin, std::int64_t end, L* line) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t row = r * channels;
      for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
        const auto activated = activate<Activation::silu>(d, load(d, a.z.data<T>() + row + c, part));
        const auto g = load(d, a.dy.data<T>() + row + c, part), u = load(d, a.u.data<T>() + row + c, part),
                   skip = load(d, a.skip.data<L>() + c, part);
        const auto dh = hn::Mul(g, activated.value);
        store(d, hn::MulAdd(dh, u, load(d, line + c, part)), line + c, part);
        if (a.dh) put(d, dh, a.dh.tensor.data<T>() + row + c, a.dh.accumulate, part);
        if (a.du) put(d, hn::Mul(dh, skip), a.du.tensor.data<T>() + row + c, a.du.accumulate, part);
        if (!a.dz) return;
        const auto sum = hn::MulAdd(skip, u, load(d, a.h.data<T>() + row + c, part));
        put(d, hn::Mul(hn::Mul(g, sum), activated.slope), a.dz.tensor.data<T>() + row + c, a.dz.accumulate,
            part);
      });
    }
  });
  sums.total(0, channels, a.dskip);
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
