// Normalisation of groups of channels on the CPU, for norm_cpu.cpp. Included once for each instruction set,
// see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_NORM_GROUP_NORM_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_NORM_GROUP_NORM_CPU_H_
#undef BIREME_CORE_OPS_NORM_GROUP_NORM_CPU_H_
#else
#define BIREME_CORE_OPS_NORM_GROUP_NORM_CPU_H_
#endif

#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/ops/norm/layer_norm_cpu.h"
#include "core/ops/norm/norm_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

template <class X, class Y>
void group_norm_forward(const GroupNormForward& a) {
  using L = Lane<X>;
  const Lanes<X> d;
  const std::int64_t channels = a.x.channels(), groups = a.mean.channels(), size = channels / groups;
  const auto offset = hn::Set(d, static_cast<L>(a.offset));
  parallel_rows(a.x.rows(), channels * std::int64_t{sizeof(X) + sizeof(Y)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t i = begin * groups; i < end * groups; ++i) {
                    const X* x = a.x.data<X>() + i * size;
                    Y* y = a.y.data<Y>() + i * size;
                    const L* gain = a.gain.data<L>() + i % groups * size;
                    const auto group = row_statistics(x, size, a.epsilon);
                    a.mean.data<L>()[i] = group.mean;
                    a.reciprocal.data<L>()[i] = group.reciprocal;
                    const auto mean = hn::Set(d, group.mean), reciprocal = hn::Set(d, group.reciprocal);
                    for_vectors(d, size, [&](std::int64_t c, auto part) HWY_ATTR {
                      const auto normal = hn::Mul(hn::Sub(load(d, x + c, part), mean), reciprocal);
                      store(d, hn::Mul(normal, hn::Add(load(d, gain + c, part), offset)), y + c, part);
                    });
                  }
                });
}

template <class X, class Y>
void group_norm_backward(const GroupNormBackward& a, Memory& memory) {
  using L = Lane<X>;
  const Lanes<X> d;
  const std::int64_t channels = a.x.channels(), groups = a.mean.channels(), size = channels / groups;
  const auto offset = hn::Set(d, static_cast<L>(a.offset));
  PartialSums<L> sums(memory, a.x.rows(), channels);
  sums.over_rows([&](std::int64_t begin, std::int64_t end, L* line) {
    for (std::int64_t i = begin * groups; i < end * groups; ++i) {
      const std::int64_t first = i % groups * size;
      const X* x = a.x.data<X>() + i * size;
      const Y* dy = a.dy.data<Y>() + i * size;
      const L* gain = a.gain.data<L>() + first;
      L* dgain = line + first;
      const auto mean = hn::Set(d, a.mean.data<L>()[i]), reciprocal = hn::Set(d, a.reciprocal.data<L>()[i]);
      auto g_sum = hn::Zero(d), gx_sum = hn::Zero(d);  // lanes past the end have dy = 0 and add nothing
      for_vectors(d, size, [&](std::int64_t c, auto part) HWY_ATTR {
        const auto g = load(d, dy + c, part);
        const auto normal = hn::Mul(hn::Sub(load(d, x + c, part), mean), reciprocal);
        const auto weighed = hn::Mul(g, hn::Add(load(d, gain + c, part), offset));
        store(d, hn::MulAdd(g, normal, load(d, dgain + c, part)), dgain + c, part);
        g_sum = hn::Add(g_sum, weighed);
        gx_sum = hn::MulAdd(weighed, normal, gx_sum);
      });
      if (!a.dx) continue;
      X* dx = a.dx.tensor.data<X>() + i * size;
      const auto g_mean = hn::Set(d, sum(d, g_sum) / static_cast<L>(size));
      const auto gx_mean = hn::Set(d, sum(d, gx_sum) / static_cast<L>(size));
      for_vectors(d, size, [&](std::int64_t c, auto part) HWY_ATTR {
        const auto normal = hn::Mul(hn::Sub(load(d, x + c, part), mean), reciprocal);
        const auto g = hn::Mul(load(d, dy + c, part), hn::Add(load(d, gain + c, part), offset));
        put(d, hn::Mul(reciprocal, hn::NegMulAdd(normal, gx_mean, hn::Sub(g, g_mean))), dx + c,
            a.dx.accumulate, part);
      });
    }
  });
  sums.total(0, channels, a.dgain);
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
