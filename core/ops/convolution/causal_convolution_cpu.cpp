#include "core/ops/convolution/causal_convolution_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/convolution/causal_convolution_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include <vector>

#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/ops/dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

/// What a convolution reads: rows of x, before them those of an earlier call, and before those nothing.
template <class T>
struct PastRows {
  const T *x, *before;
  const std::uint8_t* starts;  // or null
  std::int64_t time, channels, taps;

  template <class A>
  explicit PastRows(const A& a)
      : x(a.x.template data<T>()),
        before(a.before.defined() ? a.before.template data<T>() : nullptr),
        starts(a.starts.defined() ? a.starts.template data<std::uint8_t>() : nullptr),
        time(a.x.rows() / a.sequences),
        channels(a.x.channels()),
        taps(a.weight.channels()) {}

  /// How many rows before row r of [B·T] its document has, at most taps - 1.
  std::int64_t reach(std::int64_t r) const {
    const std::int64_t t = r % time;
    for (std::int64_t back = 0; back < taps - 1; ++back) {
      if (starts != nullptr && back <= t && starts[r - back] != 0) return back;
      if (back == t && before == nullptr) return back;
    }
    return taps - 1;
  }
  /// The row `back` before row r.
  const T* row(std::int64_t r, std::int64_t back) const {
    const std::int64_t t = r % time;
    if (back <= t) return x + (r - back) * channels;
    return before + (r / time * (taps - 1) + (taps - 1 - (back - t))) * channels;
  }
};

/// Weights by tap: [K, C], tap 0 is the row itself.
template <class L>
std::vector<L> weights_by_tap(const Tensor& weight) {
  const std::int64_t taps = weight.channels(), channels = weight.rows();
  std::vector<L> by_tap(static_cast<std::size_t>(taps * channels));
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t back = 0; back < taps; ++back)
      by_tap[static_cast<std::size_t>(back * channels + c)] = weight.data<L>()[c * taps + taps - 1 - back];
  return by_tap;
}

template <class T, class D, class P>
HWY_INLINE hn::Vec<D> convolved(D d, const PastRows<T>& past, const Lane<T>* weights, const Lane<T>* bias,
                                std::int64_t r, std::int64_t reach, std::int64_t c, P part) {
  auto total = load(d, bias + c, part);
  for (std::int64_t back = 0; back <= reach; ++back)
    total = hn::MulAdd(load(d, weights + back * past.channels + c, part),
                       load(d, past.row(r, back) + c, part), total);
  return total;
}

template <class D>
HWY_INLINE hn::Vec<D> opening(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, hn::TFromD<D>{1});
  const auto e = exp(d, hn::Neg(hn::Abs(x)));
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

template <class T>
void forward(const CausalConvolutionForward& a) {
  using L = Lane<T>;
  const Lanes<T> d;
  const PastRows<T> past(a);
  const std::vector<L> weights = weights_by_tap<L>(a.weight);
  const L* bias = a.bias.data<L>();
  parallel_rows(a.x.rows(), 2 * past.channels * std::int64_t{sizeof(T)},
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t r = begin; r < end; ++r) {
                    const std::int64_t reach = past.reach(r);
                    T* y = a.y.data<T>() + r * past.channels;
                    for_vectors(d, past.channels, [&](std::int64_t c, auto part) HWY_ATTR {
                      auto value = convolved<T>(d, past, weights.data(), bias, r, reach, c, part);
                      if (a.silu) value = hn::Mul(value, opening(d, value));
                      store(d, value, y + c, part);
                    });
                  }
                });
}

/// What the first rows of each sequence pass on to those before them. @param scratch  p, [B·T, C]
template <class T>
void before_backward(const CausalConvolutionBackward& a, const PastRows<T>& past, const Lane<T>* weights,
                     const Lane<T>* scratch) {
  const Lanes<T> d;
  const std::int64_t channels = past.channels, kept = past.taps - 1;
  for (std::int64_t row = 0; row < a.sequences * kept; ++row) {
    const std::int64_t first = row / kept * past.time, place = row % kept;
    T* dbefore = a.dbefore.tensor.data<T>() + row * channels;
    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
      auto total = hn::Zero(d);
      for (std::int64_t t = 0; t <= place && t < past.time; ++t) {
        const std::int64_t back = t + kept - place;
        if (past.reach(first + t) < back) continue;
        total = hn::MulAdd(load(d, weights + back * channels + c, part),
                           load(d, scratch + (first + t) * channels + c, part), total);
      }
      put(d, total, dbefore + c, a.dbefore.accumulate, part);
    });
  }
}

/// First p into `scratch`, with the sums over rows for weights and bias; then dx from p.
template <class T>
void backward(const CausalConvolutionBackward& a, Memory& memory) {
  using L = Lane<T>;
  const Lanes<T> d;
  const PastRows<T> past(a);
  const std::int64_t channels = past.channels, taps = past.taps, rows = a.x.rows();
  const std::vector<L> weights = weights_by_tap<L>(a.weight);
  const L* bias = a.bias.data<L>();
  const Tensor scratch(memory, {rows, channels}, TypeOf<L>::value);
  PartialSums<L> sums(memory, rows, (taps + 1) * channels);  // by tap, then the bias
  sums.over_rows([&](std::int64_t begin, std::int64_t end, L* line) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t reach = past.reach(r);
      for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
        auto p = load(d, a.dy.data<T>() + r * channels + c, part);
        if (a.silu) {
          const auto value = convolved<T>(d, past, weights.data(), bias, r, reach, c, part);
          const auto s = opening(d, value), one = hn::Set(d, L{1});
          p = hn::Mul(p, hn::Mul(s, hn::MulAdd(value, hn::Sub(one, s), one)));
        }
        store(d, p, scratch.data<L>() + r * channels + c, part);
        for (std::int64_t back = 0; back <= reach; ++back) {
          L* sum = line + back * channels + c;
          store(d, hn::MulAdd(p, load(d, past.row(r, back) + c, part), load(d, sum, part)), sum, part);
        }
        L* sum = line + taps * channels + c;
        store(d, hn::Add(p, load(d, sum, part)), sum, part);
      });
    }
  });
  if (a.dweight) {
    std::vector<L> total(static_cast<std::size_t>(taps * channels));
    sums.total(0, taps * channels, total.data());
    L* dweight = a.dweight.tensor.data<L>();
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t back = 0; back < taps; ++back) {
        L& entry = dweight[c * taps + taps - 1 - back];
        entry = total[static_cast<std::size_t>(back * channels + c)] + (a.dweight.accumulate ? entry : L{0});
      }
  }
  sums.total(taps * channels, channels, a.dbias);
  if (a.dbefore) before_backward<T>(a, past, weights.data(), scratch.data<L>());
  if (!a.dx) return;
  parallel_rows(rows, 2 * channels * std::int64_t{sizeof(L)}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      // The rows after r that read it: a run, cut off by the end of the sequence or the next start.
      std::int64_t readers = 1;
      while (readers < taps && r % past.time + readers < past.time && past.reach(r + readers) >= readers)
        ++readers;
      T* dx = a.dx.tensor.data<T>() + r * channels;
      for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
        auto total = hn::Zero(d);
        for (std::int64_t ahead = 0; ahead < readers; ++ahead)
          total = hn::MulAdd(load(d, weights.data() + ahead * channels + c, part),
                             load(d, scratch.data<L>() + (r + ahead) * channels + c, part), total);
        put(d, total, dx + c, a.dx.accumulate, part);
      });
    }
  });
}

void run_forward(const CausalConvolutionForward& a) {
  dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { forward<T>(a); });
}
void run_backward(const CausalConvolutionBackward& a, Memory& memory) {
  dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { backward<T>(a, memory); });
}

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(run_forward);
HWY_EXPORT(run_backward);
void causal_convolution(const CausalConvolutionForward& a) { HWY_DYNAMIC_DISPATCH(run_forward)(a); }
void causal_convolution(const CausalConvolutionBackward& a, Memory& memory) {
  HWY_DYNAMIC_DISPATCH(run_backward)(a, memory);
}

}  // namespace bireme::cpu
#endif
