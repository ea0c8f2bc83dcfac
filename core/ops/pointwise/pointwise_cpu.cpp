#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/pointwise/pointwise_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include "core/cpu/cpu_kernels.h"
#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/ops/dispatch.h"
#include "core/ops/pointwise/gates_cpu.h"
#include "core/ops/pointwise/pointwise_kernels.h"
#include "core/ops/pointwise/transformer_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

/// Calls f(position, Whole or Part) for every vector of `elements`, in pieces of 8192 spread over the
/// threads.
template <class D, class F>
void over_elements(D d, std::int64_t elements, F f) {
  parallel_chunks({.items = elements, .size = 8192}, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for_vectors(d, end - begin, [&](std::int64_t i, auto part) HWY_ATTR { f(begin + i, part); });
  });
}

template <class F, class T>
void add_elements(const Add& a) {
  const Lanes<F> d;
  const F* from = a.from.data<F>();
  T* to = a.to.data<T>();
  over_elements(d, a.from.elements(), [&](std::int64_t i, auto part) HWY_ATTR {
    put(d, load(d, from + i, part), to + i, a.accumulate, part);
  });
}

template <class X, class T>
void scale_elements(const Scale& a) {
  const Lanes<X> d;
  const X* x = a.x.data<X>();
  T* to = a.to.tensor.data<T>();
  const double total = a.factor * (!a.by                        ? 1
                                   : a.by.dtype() == DType::f64 ? a.by.data<double>()[0]
                                                                : double{a.by.data<float>()[0]});
  if (total == 1 && static_cast<const void*>(x) == to && !a.to.accumulate) return;
  const auto factor = hn::Set(d, static_cast<Lane<X>>(total));
  over_elements(d, a.x.elements(), [&](std::int64_t i, auto part) HWY_ATTR {
    put(d, hn::Mul(factor, load(d, x + i, part)), to + i, a.to.accumulate, part);
  });
}

template <class X, class B>
void residual_add_forward(const ResidualAddForward& a) {
  const Lanes<X> d;
  const std::int64_t channels = a.x.channels();
  parallel_rows(a.x.rows(), channels * std::int64_t{2 * sizeof(X) + sizeof(B)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) {
                    const X* x = a.x.data<X>() + r * channels;
                    const B* branch = a.branch.data<B>() + r * channels;
                    X* y = a.y.data<X>() + r * channels;
                    const auto scale = hn::Set(d, a.scale ? a.scale.data<Lane<X>>()[r] : Lane<X>{1});
                    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                      store(d, hn::MulAdd(scale, load(d, branch + c, part), load(d, x + c, part)), y + c,
                            part);
                    });
                  }
                });
}

template <class X, class B>
void residual_add_backward(const ResidualAddBackward& a) {
  const Lanes<X> d;
  const std::int64_t channels = a.dy.channels();
  parallel_rows(a.dy.rows(), channels * std::int64_t{sizeof(X) + sizeof(B)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) {
                    const X* dy = a.dy.data<X>() + r * channels;
                    B* dbranch = a.dbranch.tensor.data<B>() + r * channels;
                    const auto scale = hn::Set(d, a.scale ? a.scale.data<Lane<X>>()[r] : Lane<X>{1});
                    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                      put(d, hn::Mul(scale, load(d, dy + c, part)), dbranch + c, a.dbranch.accumulate, part);
                    });
                  }
                });
}

template <class T>
void add_bias_forward(const AddBias& a) {
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels();
  const Lane<T>* bias = a.bias.data<Lane<T>>();
  parallel_rows(a.x.rows(), 2 * channels * std::int64_t{sizeof(T)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) {
                    const T* x = a.x.data<T>() + r * channels;
                    T* y = a.y.data<T>() + r * channels;
                    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                      store(d, hn::Add(load(d, x + c, part), load(d, bias + c, part)), y + c, part);
                    });
                  }
                });
}

template <class T>
void add_bias_backward(const AddBiasBackward& a, Memory& memory) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.dy.channels();
  PartialSums<L> sums(memory, a.dy.rows(), channels);
  sums.over_rows([&](std::int64_t begin, std::int64_t end, L* line) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* dy = a.dy.data<T>() + r * channels;
      for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
        store(d, hn::Add(load(d, line + c, part), load(d, dy + c, part)), line + c, part);
      });
    }
  });
  sums.total(0, channels, a.dbias);
}

template <class T>
void sigmoid_gate_forward(const SigmoidGateForward& a) {
  const Lanes<T> d;
  const T *r = a.r.data<T>(), *x = a.x.data<T>();
  T* y = a.y.data<T>();
  over_elements(d, a.x.elements(), [&](std::int64_t i, auto part) HWY_ATTR {
    store(d, hn::Mul(sigmoid(d, load(d, r + i, part)), load(d, x + i, part)), y + i, part);
  });
}

template <class T>
void sigmoid_gate_backward(const SigmoidGateBackward& a) {
  const Lanes<T> d;
  const T *r = a.r.data<T>(), *x = a.x.data<T>(), *dy = a.dy.data<T>();
  over_elements(d, a.x.elements(), [&](std::int64_t i, auto part) HWY_ATTR {
    const auto gate = sigmoid(d, load(d, r + i, part));
    const auto dx = hn::Mul(gate, load(d, dy + i, part));
    const auto dr = hn::Mul(hn::Mul(dx, load(d, x + i, part)), hn::Sub(hn::Set(d, 1), gate));
    if (a.dx) put(d, dx, a.dx.tensor.data<T>() + i, a.dx.accumulate, part);
    if (a.dr) put(d, dr, a.dr.tensor.data<T>() + i, a.dr.accumulate, part);
  });
}

template <class T>
void gelu_forward(const GeluForward& a) {
  const Lanes<T> d;
  const T* x = a.x.data<T>();
  T* y = a.y.data<T>();
  over_elements(d, a.x.elements(), [&](std::int64_t i, auto part) HWY_ATTR {
    store(d, gelu(d, load(d, x + i, part)), y + i, part);
  });
}

template <class T>
void gelu_backward(const GeluBackward& a) {
  const Lanes<T> d;
  const T *x = a.x.data<T>(), *dy = a.dy.data<T>();
  T* dx = a.dx.tensor.data<T>();
  over_elements(d, a.x.elements(), [&](std::int64_t i, auto part) HWY_ATTR {
    const auto slope = gelu_gradient(d, load(d, x + i, part));
    put(d, hn::Mul(load(d, dy + i, part), slope), dx + i, a.dx.accumulate, part);
  });
}

class CpuPointwise final : public PointwiseKernels {
 public:
  explicit CpuPointwise(Memory& memory) : memory_(memory) {}

  void add(const Add& a) const override {
    dispatch_floats(a.from.dtype(), a.to.dtype(),
                    [&]<class F, class T>(Type<F>, Type<T>) { add_elements<F, T>(a); });
  }
  void scale(const Scale& a) const override {
    dispatch_floats(a.x.dtype(), a.to.tensor.dtype(),
                    [&]<class X, class T>(Type<X>, Type<T>) { scale_elements<X, T>(a); });
  }
  void residual_add(const ResidualAddForward& a) const override {
    dispatch_floats(a.x.dtype(), a.branch.dtype(),
                    [&]<class X, class B>(Type<X>, Type<B>) { residual_add_forward<X, B>(a); });
  }
  void residual_add(const ResidualAddBackward& a) const override {
    dispatch_floats(a.dy.dtype(), a.dbranch.tensor.dtype(),
                    [&]<class X, class B>(Type<X>, Type<B>) { residual_add_backward<X, B>(a); });
  }
  void add_bias(const AddBias& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { add_bias_forward<T>(a); });
  }
  void add_bias(const AddBiasBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) { add_bias_backward<T>(a, memory_); });
  }
  void sigmoid_gate(const SigmoidGateForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { sigmoid_gate_forward<T>(a); });
  }
  void sigmoid_gate(const SigmoidGateBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) { sigmoid_gate_backward<T>(a); });
  }
  void silu_gate(const SiluGateForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { silu_gate_forward<T>(a); });
  }
  void silu_gate(const SiluGateBackward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { silu_gate_backward<T>(a); });
  }
  void rotate(const Rotate& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { rotate_rows<T>(a); });
  }
  void skip_gate(const SkipGateForward& a) const override {
    dispatch_float(a.h.dtype(), [&]<class T>(Type<T>) { skip_gate_forward<T>(a); });
  }
  void skip_gate(const SkipGateBackward& a) const override {
    dispatch_float(a.h.dtype(), [&]<class T>(Type<T>) { skip_gate_backward<T>(a, memory_); });
  }
  void activation_gate(const ActivationGateForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { activation_gate_forward<T>(a); });
  }
  void activation_gate(const ActivationGateBackward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { activation_gate_backward<T>(a); });
  }
  void gelu(const GeluForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { gelu_forward<T>(a); });
  }
  void gelu(const GeluBackward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { gelu_backward<T>(a); });
  }

 private:
  Memory& memory_;
};

std::unique_ptr<PointwiseKernels> make_pointwise(Memory& memory) {
  return std::make_unique<CpuPointwise>(memory);
}

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_pointwise);
std::unique_ptr<PointwiseKernels> make_pointwise(Memory& memory) {
  return HWY_DYNAMIC_DISPATCH(make_pointwise)(memory);
}

}  // namespace bireme::cpu
#endif
