// WKV over the tokens of one block of channels: what the ways of running of wkv_cpu.cpp are made of. Included
// once for each instruction set (Highway), hence the guard that toggles instead of #pragma once.
#if defined(BIREME_CORE_OPS_WKV_WKV_TOKENS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_WKV_WKV_TOKENS_INL_H
#undef BIREME_CORE_OPS_WKV_WKV_TOKENS_INL_H
#else
#define BIREME_CORE_OPS_WKV_WKV_TOKENS_INL_H
#endif

#include "core/cpu/simd.h"
#include "core/ops/wkv/wkv_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

constexpr double kEmpty = -1e38;     // exponent of a sum of nothing
constexpr double kVanish = -1e30;    // log-decay at a document start; also the strongest decay of a channel
constexpr std::int64_t kBlock = 64;  // channels of a task: their state and a chunk's scratch stay in cache
constexpr std::int64_t kFewVectors =
    32;  // sequences times 16 channels; below this many, chunks run in parallel

/// Sums in the form (a, b)·e^p for the channels of a block: the state on the way forward, its adjoint on the
/// way back.
template <class L>
struct Sums {
  L *a, *b, *p;

  void clear(std::int64_t channels) const {
    std::fill_n(a, channels, L{0});
    std::fill_n(b, channels, L{0});
    std::fill_n(p, channels, static_cast<L>(kEmpty));
  }
  void copy_from(const Sums& other, std::int64_t channels) const {
    std::copy_n(other.a, channels, a);
    std::copy_n(other.b, channels, b);
    std::copy_n(other.p, channels, p);
  }
};

/// Memory of one block of channels.
template <class L>
struct OwnSums {
  L a[kBlock], b[kBlock], p[kBlock];
  Sums<L> view() { return {a, b, p}; }
};

template <class L>
Sums<L> sums_at(const WkvState& state, std::int64_t offset) {
  return {state.a.data<L>() + offset, state.b.data<L>() + offset, state.p.data<L>() + offset};
}

/// The sizes of a call, and where a chunk of it lies.
template <class L>
struct Plan {
  std::int64_t count, length, channels, chunks, blocks;
  const Sequences& sequences;
  const L *w, *u;

  std::int64_t begin(std::int64_t chunk) const { return chunk * kWkvChunk; }
  std::int64_t end(std::int64_t chunk) const { return std::min(length, (chunk + 1) * kWkvChunk); }
  std::int64_t width(std::int64_t block) const { return std::min(kBlock, channels - block * kBlock); }
  bool chunks_in_parallel() const { return chunks > 1 && count * ((channels + 15) / 16) < kFewVectors; }
  /// Element of a tensor [B, T, C].
  std::int64_t at(std::int64_t b, std::int64_t t, std::int64_t block) const {
    return (b * length + t) * channels + block * kBlock;
  }
  /// In a tensor [B, chunks, 3, C].
  Sums<L> boundary(L* states, std::int64_t b, std::int64_t chunk, std::int64_t block) const {
    L* line = states + (b * chunks + chunk) * 3 * channels + block * kBlock;
    return {line, line + channels, line + 2 * channels};
  }
  bool is_start(std::int64_t b, std::int64_t t) const {
    const std::uint8_t* starts = sequences.starts_of(b);
    return starts != nullptr && starts[t] != 0;
  }
  bool has_start(std::int64_t b, std::int64_t chunk) const {
    for (std::int64_t t = begin(chunk); t < end(chunk); ++t)
      if (is_start(b, t)) return true;
    return false;
  }
};

/// Weights of two terms whose exponents are x and y, relative to the larger one: one of them is 1.
template <class D>
struct Weights {
  hn::Vec<D> x, y, exponent;
};
template <class D>
HWY_INLINE Weights<D> weights_of(D d, hn::Vec<D> x, hn::Vec<D> y) {
  const auto smaller = exp(d, hn::Neg(hn::Abs(hn::Sub(x, y))));
  const auto x_leads = hn::Ge(x, y);
  const auto one = hn::Set(d, 1);
  return {hn::IfThenElse(x_leads, one, smaller), hn::IfThenElse(x_leads, smaller, one), hn::Max(x, y)};
}

/// What a chunk's forward pass leaves for its way back: for each token the state before it, the weight
/// e^{u+k-m} of the token itself, 1/d and the ungated result.
template <class L>
struct Replay {
  static constexpr std::int64_t kLines = 6;
  L* memory;  // [kWkvChunk, kLines, kBlock]

  L* line(std::int64_t token, int which) const { return memory + (token * kLines + which) * kBlock; }
};
enum ReplayLine { kA, kB, kP, kOwn, kReciprocal, kResult };

/// Advances the state over one token.
template <class D, class L, class P>
HWY_INLINE void advance(D d, const Sums<L>& state, std::int64_t c, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> p,
                        hn::Vec<D> w, hn::Vec<D> k, hn::Vec<D> v, P part) {
  const auto next = weights_of(d, hn::Add(p, w), k);
  store(d, hn::MulAdd(next.x, a, hn::Mul(next.y, v)), state.a + c, part);
  store(d, hn::MulAdd(next.x, b, next.y), state.b + c, part);
  store(d, next.exponent, state.p + c, part);
}

/// Runs a block of channels through tokens [begin, end) of sequence b, from and into `state`.
template <class T, class L>
void run_tokens(const WkvForward& a, const Plan<L>& plan, std::int64_t b, std::int64_t begin,
                std::int64_t end, std::int64_t block, const Sums<L>& state) {
  const Lanes<T> d;
  const std::int64_t width = plan.width(block);
  const L *w = plan.w + block * kBlock, *u = plan.u + block * kBlock;
  for (std::int64_t t = begin; t < end; ++t) {
    if (plan.is_start(b, t)) state.clear(width);
    const std::int64_t row = plan.at(b, t, block);
    const T *r = a.r.data<T>() + row, *k_row = a.k.data<T>() + row, *v_row = a.v.data<T>() + row;
    T* y = a.y.data<T>() + row;
    for_vectors(d, width, [&](std::int64_t c, auto part) HWY_ATTR {
      const auto k = load(d, k_row + c, part), v = load(d, v_row + c, part);
      const auto sum_a = load(d, state.a + c, part), sum_b = load(d, state.b + c, part);
      const auto p = load(d, state.p + c, part);
      const auto share = weights_of(d, p, hn::Add(load(d, u + c, part), k));
      const auto weight = hn::MulAdd(share.x, sum_b, share.y);
      const auto total = hn::MulAdd(share.x, sum_a, hn::Mul(share.y, v));
      // σ(r)·total/weight with one division; far below 0 the exponential is infinite and the result 0.
      const auto gate = hn::Add(hn::Set(d, 1), exp(d, hn::Neg(load(d, r + c, part))));
      store(d, hn::Div(total, hn::Mul(weight, gate)), y + c, part);
      advance(d, state, c, sum_a, sum_b, p, load(d, w + c, part), k, v, part);
    });
  }
}

/// Only the state: the element of a chunk when it starts empty.
template <class T, class L>
void reduce_tokens(const WkvForward& a, const Plan<L>& plan, std::int64_t b, std::int64_t chunk,
                   std::int64_t block, const Sums<L>& state) {
  const Lanes<T> d;
  const std::int64_t width = plan.width(block);
  const L* w = plan.w + block * kBlock;
  state.clear(width);
  for (std::int64_t t = plan.begin(chunk); t < plan.end(chunk); ++t) {
    if (plan.is_start(b, t)) state.clear(width);
    const std::int64_t row = plan.at(b, t, block);
    const T *k = a.k.data<T>() + row, *v = a.v.data<T>() + row;
    for_vectors(d, width, [&](std::int64_t c, auto part) HWY_ATTR {
      advance(d, state, c, load(d, state.a + c, part), load(d, state.b + c, part), load(d, state.p + c, part),
              load(d, w + c, part), load(d, k + c, part), load(d, v + c, part), part);
    });
  }
}

/// running = running decayed by the chunk's length, plus the chunk's element; the element's place takes what
/// was there before it.
template <class L>
void scan_step(const Plan<L>& plan, std::int64_t b, std::int64_t chunk, std::int64_t block,
               const Sums<L>& running, const Sums<L>& element) {
  const hn::ScalableTag<L> d;
  const L* w = plan.w + block * kBlock;
  const bool cut = plan.has_start(b, chunk);
  const auto tokens = static_cast<L>(plan.end(chunk) - plan.begin(chunk));
  for_vectors(d, plan.width(block), [&](std::int64_t c, auto part) HWY_ATTR {
    const auto a = load(d, running.a + c, part), sum_b = load(d, running.b + c, part);
    const auto p = load(d, running.p + c, part);
    const auto decay =
        cut ? hn::Set(d, static_cast<L>(kVanish))
            : hn::Max(hn::Mul(load(d, w + c, part), hn::Set(d, tokens)), hn::Set(d, static_cast<L>(kVanish)));
    const auto share = weights_of(d, hn::Add(p, decay), load(d, element.p + c, part));
    const auto next_a = hn::MulAdd(share.x, a, hn::Mul(share.y, load(d, element.a + c, part)));
    const auto next_b = hn::MulAdd(share.x, sum_b, hn::Mul(share.y, load(d, element.b + c, part)));
    store(d, a, element.a + c, part);
    store(d, sum_b, element.b + c, part);
    store(d, p, element.p + c, part);
    store(d, next_a, running.a + c, part);
    store(d, next_b, running.b + c, part);
    store(d, share.exponent, running.p + c, part);
  });
}

/// The forward pass of a chunk again, from the state kept before it, leaving what the way back reads.
template <class T, class L>
void replay_tokens(const WkvBackward& a, const Plan<L>& plan, std::int64_t b, std::int64_t chunk,
                   std::int64_t block, const Replay<L>& replay) {
  const Lanes<T> d;
  const std::int64_t width = plan.width(block);
  const L *w = plan.w + block * kBlock, *u = plan.u + block * kBlock;
  OwnSums<L> own;
  const Sums<L> state = own.view();
  state.copy_from(plan.boundary(a.states.data<L>(), b, chunk, block), width);
  for (std::int64_t t = plan.begin(chunk); t < plan.end(chunk); ++t) {
    if (plan.is_start(b, t)) state.clear(width);
    const std::int64_t row = plan.at(b, t, block), token = t - plan.begin(chunk);
    const T *k_row = a.k.data<T>() + row, *v_row = a.v.data<T>() + row;
    for_vectors(d, width, [&](std::int64_t c, auto part) HWY_ATTR {
      const auto k = load(d, k_row + c, part), v = load(d, v_row + c, part);
      const auto sum_a = load(d, state.a + c, part), sum_b = load(d, state.b + c, part);
      const auto p = load(d, state.p + c, part);
      const auto share = weights_of(d, p, hn::Add(load(d, u + c, part), k));
      const auto reciprocal = hn::Div(hn::Set(d, 1), hn::MulAdd(share.x, sum_b, share.y));
      const auto total = hn::MulAdd(share.x, sum_a, hn::Mul(share.y, v));
      store(d, sum_a, replay.line(token, kA) + c, part);
      store(d, sum_b, replay.line(token, kB) + c, part);
      store(d, p, replay.line(token, kP) + c, part);
      store(d, share.y, replay.line(token, kOwn) + c, part);
      store(d, reciprocal, replay.line(token, kReciprocal) + c, part);
      store(d, hn::Mul(total, reciprocal), replay.line(token, kResult) + c, part);
      advance(d, state, c, sum_a, sum_b, p, load(d, w + c, part), k, v, part);
    });
  }
}

/// The adjoint before one token from the one after it.
template <class D, class L, class P>
HWY_INLINE void recede(D d, const Sums<L>& adjoint, std::int64_t c, hn::Vec<D> decayed, hn::Vec<D> minus_m,
                       hn::Vec<D> alpha, hn::Vec<D> beta, hn::Vec<D> q, hn::Vec<D> y, P part) {
  const auto next = weights_of(d, decayed, minus_m);
  const auto own = hn::Mul(next.y, q);
  store(d, hn::MulAdd(next.x, alpha, own), adjoint.a + c, part);
  store(d, hn::NegMulAdd(own, y, hn::Mul(next.x, beta)), adjoint.b + c, part);
  store(d, next.exponent, adjoint.p + c, part);
}

/// Takes the adjoint back over a chunk that was replayed, from and into `adjoint`. With `Gradients` it writes
/// those of r, k and v and adds those of w and u to the lines; without, only the adjoint moves.
template <bool Gradients, class T, class L>
void return_tokens(const WkvBackward& a, const Plan<L>& plan, std::int64_t b, std::int64_t chunk,
                   std::int64_t block, const Replay<L>& replay, const Sums<L>& adjoint, L* dw_line,
                   L* du_line) {
  const Lanes<T> d;
  const std::int64_t width = plan.width(block);
  const L *w_line = plan.w + block * kBlock, *u_line = plan.u + block * kBlock;
  const auto zero = hn::Zero(d), one = hn::Set(d, 1);
  for (std::int64_t t = plan.end(chunk); t-- > plan.begin(chunk);) {
    const std::int64_t row = plan.at(b, t, block), token = t - plan.begin(chunk);
    const T *dy_row = a.dy.data<T>() + row, *r_row = a.r.data<T>() + row;
    const T *k_row = a.k.data<T>() + row, *v_row = a.v.data<T>() + row;
    for_vectors(d, width, [&](std::int64_t c, auto part) HWY_ATTR {
      const auto k = load(d, k_row + c, part), u = load(d, u_line + c, part);
      const auto p = load(d, replay.line(token, kP) + c, part);
      const auto y = load(d, replay.line(token, kResult) + c, part);
      const auto dy = load(d, dy_row + c, part), gate = sigmoid(d, load(d, r_row + c, part));
      const auto q = hn::Mul(hn::Mul(gate, dy), load(d, replay.line(token, kReciprocal) + c, part));
      const auto alpha = load(d, adjoint.a + c, part), beta = load(d, adjoint.b + c, part);
      const auto rho = load(d, adjoint.p + c, part);
      const auto decayed = hn::Add(rho, load(d, w_line + c, part));
      if constexpr (Gradients) {
        const auto v = load(d, v_row + c, part);
        const auto own = hn::Mul(q, load(d, replay.line(token, kOwn) + c, part));
        const auto later = exp(d, hn::Min(hn::Add(k, rho), zero));
        const auto du = hn::Mul(own, hn::Sub(v, y));
        const auto dr = hn::Mul(hn::Mul(dy, y), hn::Mul(gate, hn::Sub(one, gate)));
        if (a.dr) put(d, dr, a.dr.tensor.data<T>() + row + c, a.dr.accumulate, part);
        if (a.dk)
          put(d, hn::MulAdd(later, hn::MulAdd(alpha, v, beta), du), a.dk.tensor.data<T>() + row + c,
              a.dk.accumulate, part);
        if (a.dv)
          put(d, hn::MulAdd(later, alpha, own), a.dv.tensor.data<T>() + row + c, a.dv.accumulate, part);
        const auto sum_a = load(d, replay.line(token, kA) + c, part);
        const auto sum_b = load(d, replay.line(token, kB) + c, part);
        const auto dw = hn::Mul(exp(d, hn::Min(hn::Add(decayed, p), zero)),
                                hn::MulAdd(alpha, sum_a, hn::Mul(beta, sum_b)));
        store(d, hn::Add(load(d, dw_line + c, part), dw), dw_line + c, part);
        store(d, hn::Add(load(d, du_line + c, part), du), du_line + c, part);
      }
      recede(d, adjoint, c, decayed, hn::Neg(hn::Max(p, hn::Add(u, k))), alpha, beta, q, y, part);
    });
    if (plan.is_start(b, t)) adjoint.clear(width);
  }
}

template <class L>
void add_line(L* to, const L* from, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
