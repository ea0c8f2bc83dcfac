#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/norm/norm_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include "core/cpu/cpu_kernels.h"
#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/dispatch.h"
#include "core/ops/norm/batch_norm_cpu.h"
#include "core/ops/norm/group_norm_cpu.h"
#include "core/ops/norm/layer_norm_cpu.h"
#include "core/ops/norm/norm_kernels.h"
#include "core/ops/norm/rms_norm_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

constexpr double kNormFloor = 1e-12;

template <class T>
void l2_normalize_forward(const L2NormalizeForward& a) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.x.channels();
  parallel_rows(a.x.rows(), 2 * channels * std::int64_t{sizeof(T)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) {
                    const T* x = a.x.data<T>() + r * channels;
                    T* u = a.u.data<T>() + r * channels;
                    const L norm = std::max(std::sqrt(dot(x, x, channels)), static_cast<L>(kNormFloor));
                    a.norm.data<L>()[r] = norm;
                    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                      store(d, hn::Div(load(d, x + c, part), hn::Set(d, norm)), u + c, part);
                    });
                  }
                });
}

template <class T>
void l2_normalize_backward(const L2NormalizeBackward& a) {
  using L = Lane<T>;
  const Lanes<T> d;
  const std::int64_t channels = a.u.channels();
  parallel_rows(
      a.u.rows(), 3 * channels * std::int64_t{sizeof(T)}, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          const T* u = a.u.data<T>() + r * channels;
          const T* du = a.du.data<T>() + r * channels;
          T* dx = a.dx.tensor.data<T>() + r * channels;
          const L norm = a.norm.data<L>()[r];
          const auto radial = hn::Set(d, norm > static_cast<L>(kNormFloor) ? dot(u, du, channels) : L{0});
          for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
            const auto tangential = hn::NegMulAdd(load(d, u + c, part), radial, load(d, du + c, part));
            put(d, hn::Div(tangential, hn::Set(d, norm)), dx + c, a.dx.accumulate, part);
          });
        }
      });
}

template <class V, class W>
void weight_norm_forward(const WeightNormForward& a) {
  const Lanes<V> d;
  const std::int64_t channels = a.direction.channels();
  parallel_rows(a.direction.rows(), channels * std::int64_t{sizeof(V) + sizeof(W)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t k = begin; k < end; ++k) {
                    const V* v = a.direction.data<V>() + k * channels;
                    W* weight = a.weight.data<W>() + k * channels;
                    const V norm = std::sqrt(dot(v, v, channels));
                    a.norm.data<V>()[k] = norm;
                    const auto scale = hn::Set(d, a.magnitude.data<V>()[k] / norm);
                    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
                      store(d, hn::Mul(load(d, v + c, part), scale), weight + c, part);
                    });
                  }
                });
}

template <class V, class W>
void weight_norm_backward(const WeightNormBackward& a) {
  const Lanes<V> d;
  const std::int64_t channels = a.direction.channels();
  parallel_rows(
      a.direction.rows(), channels * std::int64_t{2 * sizeof(V) + sizeof(W)},
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t k = begin; k < end; ++k) {
          const V* v = a.direction.data<V>() + k * channels;
          const W* dweight = a.dweight.data<W>() + k * channels;
          const V norm = a.norm.data<V>()[k];
          const V dg = dot(v, dweight, channels) / norm;
          if (a.dmagnitude) {
            V& entry = a.dmagnitude.tensor.data<V>()[k];
            entry = a.dmagnitude.accumulate ? entry + dg : dg;
          }
          if (!a.ddirection) continue;
          V* dv = a.ddirection.tensor.data<V>() + k * channels;
          const auto scale = hn::Set(d, a.magnitude.data<V>()[k] / norm), radial = hn::Set(d, dg / norm);
          for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
            const auto tangential = hn::NegMulAdd(load(d, v + c, part), radial, load(d, dweight + c, part));
            put(d, hn::Mul(tangential, scale), dv + c, a.ddirection.accumulate, part);
          });
        }
      });
}

class CpuNorm final : public NormKernels {
 public:
  explicit CpuNorm(Memory& memory) : memory_(memory) {}

  void layer_norm(const LayerNormForward& a) const override {
    dispatch_floats(a.x.dtype(), a.y.dtype(),
                    [&]<class X, class Y>(Type<X>, Type<Y>) { layer_norm_forward<X, Y>(a); });
  }
  void residual_layer_norm(const ResidualNormForward& a) const override {
    dispatch_floats(a.x.dtype(), a.y.dtype(),
                    [&]<class X, class Y>(Type<X>, Type<Y>) { residual_layer_norm_forward<X, Y>(a); });
  }
  void layer_norm(const LayerNormBackward& a) const override {
    dispatch_floats(a.x.dtype(), a.dy.dtype(),
                    [&]<class X, class Y>(Type<X>, Type<Y>) { layer_norm_backward<X, Y>(a, memory_); });
  }
  void rms_norm(const RmsNormForward& a) const override {
    dispatch_floats(a.x.dtype(), a.y.dtype(),
                    [&]<class X, class Y>(Type<X>, Type<Y>) { rms_norm_forward<X, Y>(a); });
  }
  void rms_norm(const RmsNormBackward& a) const override {
    dispatch_floats(a.x.dtype(), a.dy.dtype(),
                    [&]<class X, class Y>(Type<X>, Type<Y>) { rms_norm_backward<X, Y>(a, memory_); });
  }
  void group_norm(const GroupNormForward& a) const override {
    dispatch_floats(a.x.dtype(), a.y.dtype(),
                    [&]<class X, class Y>(Type<X>, Type<Y>) { group_norm_forward<X, Y>(a); });
  }
  void group_norm(const GroupNormBackward& a) const override {
    dispatch_floats(a.x.dtype(), a.dy.dtype(),
                    [&]<class X, class Y>(Type<X>, Type<Y>) { group_norm_backward<X, Y>(a, memory_); });
  }
  void l2_normalize(const L2NormalizeForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { l2_normalize_forward<T>(a); });
  }
  void l2_normalize(const L2NormalizeBackward& a) const override {
    dispatch_float(a.u.dtype(), [&]<class T>(Type<T>) { l2_normalize_backward<T>(a); });
  }
  void weight_norm(const WeightNormForward& a) const override {
    dispatch_float(a.weight.dtype(), [&]<class W>(Type<W>) { weight_norm_forward<Lane<W>, W>(a); });
  }
  void weight_norm(const WeightNormBackward& a) const override {
    dispatch_float(a.dweight.dtype(), [&]<class W>(Type<W>) { weight_norm_backward<Lane<W>, W>(a); });
  }
  void batch_sums(const BatchSums& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { HWY_NAMESPACE::batch_sums<T>(a, memory_); });
  }
  void batch_squares(const BatchSquares& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { HWY_NAMESPACE::batch_squares<T>(a, memory_); });
  }
  void batch_norm(const BatchNormForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { batch_norm_forward<T>(a); });
  }
  void batch_norm(const BatchNormTotals& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { batch_norm_totals<T>(a, memory_); });
  }
  void batch_norm(const BatchNormBackward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { batch_norm_backward<T>(a); });
  }

 private:
  Memory& memory_;
};

std::unique_ptr<NormKernels> make_norm(Memory& memory) { return std::make_unique<CpuNorm>(memory); }

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_norm);
std::unique_ptr<NormKernels> make_norm(Memory& memory) { return HWY_DYNAMIC_DISPATCH(make_norm)(memory); }

}  // namespace bireme::cpu
#endif
