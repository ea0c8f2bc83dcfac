// One time step of the sLSTM's cells on the CPU, for slstm_cpu.cpp. Included once for each instruction set,
// see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_SLSTM_SLSTM_CELLS_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_SLSTM_SLSTM_CELLS_CPU_H_
#undef BIREME_CORE_OPS_SLSTM_SLSTM_CELLS_CPU_H_
#else
#define BIREME_CORE_OPS_SLSTM_SLSTM_CELLS_CPU_H_
#endif

#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

/// The units of one head of one sequence, padded to `width`; pre and dgates hold four gates of that width.
template <class F>
struct SlstmUnits {
  const F* pre;      // ĩ, f̃, z̃, õ
  F *h, *c, *n, *m;  // state, moved on
  F* kept;           // seven rows of `width`, or null
  std::int64_t width;
};

template <class D>
HWY_INLINE hn::Vec<D> logistic(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, hn::TFromD<D>{1});
  const auto e = exp(d, hn::Neg(hn::Abs(x)));
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

template <bool kClassical, class D, class F = hn::TFromD<D>>
HWY_INLINE void slstm_cells(D d, const SlstmUnits<F>& u) {
  const std::int64_t W = u.width;
  const auto one = hn::Set(d, F{1}), zero = hn::Zero(d);
  for (std::int64_t j = 0; j < W; j += lanes_of(d)) {
    const auto i_pre = hn::LoadU(d, u.pre + j), f_pre = hn::LoadU(d, u.pre + W + j);
    const auto z = tanh(d, hn::LoadU(d, u.pre + 2 * W + j)), o = logistic(d, hn::LoadU(d, u.pre + 3 * W + j));
    const auto c_before = hn::LoadU(d, u.c + j);
    hn::Vec<D> input, forget, shut, c, last, h;
    if constexpr (kClassical) {
      input = logistic(d, i_pre);
      forget = logistic(d, f_pre);
      shut = hn::Sub(one, forget);
      c = hn::MulAdd(forget, c_before, hn::Mul(input, z));
      last = tanh(d, c);
      h = hn::Mul(o, last);
    } else {
      const auto n_before = hn::LoadU(d, u.n + j);
      const auto e = exp(d, hn::Neg(hn::Abs(f_pre)));
      const auto log_forget = hn::Sub(hn::Min(f_pre, zero), hn::Log1p(d, e));
      shut = hn::Div(hn::IfThenElse(hn::Lt(f_pre, zero), one, e), hn::Add(one, e));
      const auto carried = hn::Add(log_forget, hn::LoadU(d, u.m + j));
      const auto m = hn::IfThenElse(hn::Eq(n_before, zero), i_pre, hn::Max(carried, i_pre));
      input = exp(d, hn::Min(hn::Sub(i_pre, m), zero));
      forget = exp(d, hn::Min(hn::Sub(carried, m), zero));
      c = hn::MulAdd(forget, c_before, hn::Mul(input, z));
      last = hn::MulAdd(forget, n_before, input);
      h = hn::Div(hn::Mul(o, c), last);
      hn::StoreU(m, d, u.m + j);
    }
    hn::StoreU(h, d, u.h + j);
    hn::StoreU(c, d, u.c + j);
    hn::StoreU(last, d, u.n + j);
    if (u.kept == nullptr) continue;
    const hn::Vec<D> values[] = {input, forget, z, o, shut, c, last};
    for (int row = 0; row < 7; ++row) hn::StoreU(values[row], d, u.kept + row * W + j);
  }
}

/// The same units on the way back. States before the step are those of the step before, or null for zeros.
template <class F>
struct SlstmUnitGradients {
  const F *kept, *h;
  const F *c_before, *n_before;
  F *dh, *dc, *dn;  // dh in: all that reaches h; dc, dn moved to the step before
  F* dgates;        // four gates
  std::int64_t width;
};

template <bool kClassical, class D, class F = hn::TFromD<D>>
HWY_INLINE void slstm_cell_gradients(D d, const SlstmUnitGradients<F>& u) {
  const std::int64_t W = u.width;
  const auto one = hn::Set(d, F{1});
  for (std::int64_t j = 0; j < W; j += lanes_of(d)) {
    const auto row = [&](int k) HWY_ATTR { return hn::LoadU(d, u.kept + k * W + j); };
    const auto input = row(0), forget = row(1), z = row(2), o = row(3), shut = row(4), last = row(6);
    const auto c_before = u.c_before == nullptr ? hn::Zero(d) : hn::LoadU(d, u.c_before + j);
    const auto dh = hn::LoadU(d, u.dh + j), h = hn::LoadU(d, u.h + j);
    auto dc = hn::LoadU(d, u.dc + j);
    hn::Vec<D> di, df;
    if constexpr (kClassical) {
      dc = hn::MulAdd(hn::Mul(dh, o), hn::NegMulAdd(last, last, one), dc);
      di = hn::Mul(hn::Mul(dc, z), hn::Mul(input, hn::Sub(one, input)));
      df = hn::Mul(hn::Mul(dc, c_before), hn::Mul(forget, shut));
    } else {
      const auto share = hn::Div(dh, last);
      dc = hn::MulAdd(share, o, dc);
      const auto dn = hn::NegMulAdd(share, h, hn::LoadU(d, u.dn + j));
      const auto n_before = u.n_before == nullptr ? hn::Zero(d) : hn::LoadU(d, u.n_before + j);
      di = hn::Mul(input, hn::MulAdd(dc, z, dn));
      df = hn::Mul(hn::Mul(forget, shut), hn::MulAdd(dc, c_before, hn::Mul(dn, n_before)));
      hn::StoreU(hn::Mul(forget, dn), d, u.dn + j);
    }
    hn::StoreU(di, d, u.dgates + j);
    hn::StoreU(df, d, u.dgates + W + j);
    hn::StoreU(hn::Mul(hn::Mul(dc, input), hn::NegMulAdd(z, z, one)), d, u.dgates + 2 * W + j);
    hn::StoreU(hn::Mul(hn::Mul(dh, h), hn::Sub(one, o)), d, u.dgates + 3 * W + j);
    hn::StoreU(hn::Mul(forget, dc), d, u.dc + j);
  }
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set
