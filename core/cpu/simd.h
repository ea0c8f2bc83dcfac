// SIMD lanes for CPU kernels, written once and compiled for each instruction set (Google's Highway). Like
// Highway's own
// "-inl" headers this one is included again for every instruction set, hence the guard in place of #pragma
// once.
//
// A file of kernels starts so, which makes the compiler go through it once for each instruction set:
//     #undef HWY_TARGET_INCLUDE
//     #define HWY_TARGET_INCLUDE "core/ops/norm/norm_cpu.cpp"  // this file
//     #include <hwy/foreach_target.h>
//     #include "core/cpu/simd.h"
// puts its kernels between HWY_BEFORE_NAMESPACE() and HWY_AFTER_NAMESPACE() in bireme::cpu::HWY_NAMESPACE,
// and ends with the factory that picks the widest set of this CPU (HWY_DYNAMIC_DISPATCH). Lambdas that touch
// lanes are marked HWY_ATTR.
#if defined(BIREME_CORE_CPU_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_CPU_SIMD_H_
#undef BIREME_CORE_CPU_SIMD_H_
#else
#define BIREME_CORE_CPU_SIMD_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/base/bf16.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The type in which elements of storage type T are computed: double for double, float for float and bf16.
template <class T>
using Lane = std::conditional_t<std::is_same_v<T, double>, double, float>;
/// The vector that holds lanes for storage type T, as Highway's tag.
template <class T>
using Lanes = hn::ScalableTag<Lane<T>>;

template <class D>
std::int64_t lanes_of(D d) {
  return static_cast<std::int64_t>(hn::Lanes(d));
}

// ---- Loads and stores. A row is a run of whole vectors and at most one part of a vector; code written for
// either takes
// ---- the difference as its last argument. Lanes past the end of a part read as 0 and are not written.

struct Whole {};
struct Part {
  std::int64_t count;  // 0 < count < lanes
};

/// Calls f(position, Whole or Part) for each vector of a row of `count` elements, in order.
template <class D, class F>
HWY_INLINE void for_vectors(D d, std::int64_t count, F&& f) {
  const std::int64_t lanes = lanes_of(d);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) f(i, Whole{});
  if (i < count) f(i, Part{count - i});
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const hn::TFromD<D>* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const bf16* from) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::Rebind<std::uint32_t, D> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, &from->bits))));
}

template <class D>
HWY_INLINE void store(D d, hn::Vec<D> v, hn::TFromD<D>* to) {
  hn::StoreU(v, d, to);
}
/// Rounds to nearest, ties to even; NaN stays NaN. The same bits as to_bf16().
template <class D>
HWY_INLINE void store(D, hn::Vec<D> v, bf16* to) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::Rebind<std::uint32_t, D> d32;
  const auto bits = hn::BitCast(d32, v);
  const auto upper = hn::ShiftRight<16>(bits);
  const auto odd = hn::And(upper, hn::Set(d32, 1U));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(d32, 0x7fffU)), odd));
  const auto quiet = hn::Or(upper, hn::Set(d32, 0x40U));
  const auto is_nan = hn::RebindMask(d32, hn::IsNaN(v));
  hn::StoreU(hn::TruncateTo(d16, hn::IfThenElse(is_nan, quiet, rounded)), d16, &to->bits);
}

template <class D, class T>
HWY_INLINE hn::Vec<D> load(D d, const T* from, Whole) {
  return load(d, from);
}
template <class D, class T>
HWY_INLINE hn::Vec<D> load(D d, const T* from, Part part) {
  T padded[hn::MaxLanes(D{})] = {};
  std::copy_n(from, part.count, padded);
  return load(d, padded);
}
template <class D, class T>
HWY_INLINE void store(D d, hn::Vec<D> v, T* to, Whole) {
  store(d, v, to);
}
template <class D, class T>
HWY_INLINE void store(D d, hn::Vec<D> v, T* to, Part part) {
  T padded[hn::MaxLanes(D{})];
  store(d, v, padded);
  std::copy_n(padded, part.count, to);
}

/// v, with 0 (or `otherwise`) in the lanes past the end of a part: for sums and maxima.
template <class D>
HWY_INLINE hn::Vec<D> keep(D, hn::Vec<D> v, Whole) {
  return v;
}
template <class D>
HWY_INLINE hn::Vec<D> keep(D d, hn::Vec<D> v, Part part) {
  return hn::IfThenElseZero(hn::FirstN(d, static_cast<std::size_t>(part.count)), v);
}
template <class D>
HWY_INLINE hn::Vec<D> keep(D, hn::Vec<D> v, Whole, hn::TFromD<D>) {
  return v;
}
template <class D>
HWY_INLINE hn::Vec<D> keep(D d, hn::Vec<D> v, Part part, hn::TFromD<D> otherwise) {
  return hn::IfThenElse(hn::FirstN(d, static_cast<std::size_t>(part.count)), v, hn::Set(d, otherwise));
}

template <class D>
HWY_INLINE hn::TFromD<D> sum(D d, hn::Vec<D> v) {
  return hn::GetLane(hn::SumOfLanes(d, v));
}
template <class D>
HWY_INLINE hn::TFromD<D> maximum(D d, hn::Vec<D> v) {
  return hn::GetLane(hn::MaxOfLanes(d, v));
}

/// Writes v, or adds it to what is there.
template <class D, class T, class P>
HWY_INLINE void put(D d, hn::Vec<D> v, T* to, bool accumulate, P part) {
  store(d, accumulate ? hn::Add(v, load(d, to, part)) : v, to, part);
}

/// Sum over c of a[c] · b[c].
template <class A, class B>
Lane<A> dot(const A* a, const B* b, std::int64_t channels) {
  const Lanes<A> d;
  auto total = hn::Zero(d);
  for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
    total = hn::MulAdd(load(d, a + c, part), load(d, b + c, part), total);
  });
  return sum(d, total);
}

// ---- Elementary functions. exp, log and tanh are Highway's (at most 1, 4 and 4 units in the last place).

template <class D>
HWY_INLINE hn::Vec<D> exp(D d, hn::Vec<D> x) {
  return hn::Exp(d, x);
}
template <class D>
HWY_INLINE hn::Vec<D> log(D d, hn::Vec<D> x) {
  return hn::Log(d, x);
}
template <class D>
HWY_INLINE hn::Vec<D> tanh(D d, hn::Vec<D> x) {
  return hn::Tanh(d, x);
}

/// 1 / (1 + e^{-x}). The exponential may become infinite, the result is 0 then, as it should be.
template <class D>
HWY_INLINE hn::Vec<D> sigmoid(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, 1);
  return hn::Div(one, hn::Add(one, exp(d, hn::Neg(x))));
}

/// The standard normal law at x: density φ and distribution Φ.
template <class D>
struct Normal {
  hn::Vec<D> density, distribution;
};

/// fp32: Φ(-|x|) = exp(-x²/2) · t · P(t), t = 1 / (1 + 0.21·|x|): the form of Abramowitz and Stegun 7.1.26,
/// with P of degree 8 fitted here to a relative error of 1.2e-8 on |x| ≤ 12.5. One exponential serves both
/// results. In fp32 arithmetic both are within 1.2e-7 (absolute) of the exact values; lanes of 0, ±infinity
/// and NaN come out as they should.
template <class D>
requires std::is_same_v < hn::TFromD<D>,
float > HWY_INLINE Normal<D> normal(D d, hn::Vec<D> x) {
  const auto distance = hn::Abs(x);
  const auto e = hn::Exp(d, hn::Mul(hn::Mul(x, x), hn::Set(d, -0.5f)));
  const auto t = hn::Div(hn::Set(d, 1.0f), hn::MulAdd(distance, hn::Set(d, 0.21f), hn::Set(d, 1.0f)));
  auto p = hn::Set(d, -0.0724155594632617f);
  for (const float c :
       {0.2873388959965681f, -0.33817602796450985f, 0.3587376646435427f, -0.10063010663881514f,
        0.12787368157144194f, 0.06837548784495498f, 0.08519231658789252f, 0.08370364185337054f}) {
    p = hn::MulAdd(p, t, hn::Set(d, c));
  }
  const auto tail = hn::Mul(e, hn::Mul(p, t));
  return {hn::Mul(e, hn::Set(d, 0.3989422804f)),
          hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 1.0f), tail))};
}

/// fp64, for checks: the C library's erfc, lane by lane.
template <class D>
requires std::is_same_v < hn::TFromD<D>,
double > HWY_INLINE Normal<D> normal(D d, hn::Vec<D> x) {
  HWY_ALIGN double lanes[hn::MaxLanes(D{})];
  hn::Store(x, d, lanes);
  for (double& lane : lanes) lane = 0.5 * std::erfc(-0.70710678118654752440 * lane);
  const auto density =
      hn::Mul(hn::Exp(d, hn::Mul(hn::Mul(x, x), hn::Set(d, -0.5))), hn::Set(d, 0.39894228040143267794));
  return {density, hn::Load(d, lanes)};
}

/// x·Φ(x).
template <class D>
HWY_INLINE hn::Vec<D> gelu(D d, hn::Vec<D> x) {
  return hn::Mul(x, normal(d, x).distribution);
}
/// Its derivative, Φ(x) + x·φ(x).
template <class D>
HWY_INLINE hn::Vec<D> gelu_gradient(D d, hn::Vec<D> x) {
  const auto law = normal(d, x);
  return hn::MulAdd(x, law.density, law.distribution);
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
