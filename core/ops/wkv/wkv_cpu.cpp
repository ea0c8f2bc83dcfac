#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/wkv/wkv_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include "core/cpu/cpu_kernels.h"
#include "core/cpu/parallel.h"
#include "core/cpu/simd.h"
#include "core/ops/dispatch.h"
#include "core/ops/wkv/wkv_kernels.h"

// How the work is cut. Channels are independent, so blocks of them never change a bit. Time is cut into
// chunks of kWkvChunk tokens for the states that are kept, and either
//   - one task runs through all chunks of its sequence and channels, carrying the state, or,
//   - where that gives too few tasks, each chunk first reduces its tokens to one element (log-decay of all
//     that stands before it, and its own contribution), a short scan combines the elements, and then the
//     chunks run beside each other from the states that the scan gave them.
// The two round differently; which one runs depends on the shape alone.

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

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

class CpuWkv final : public WkvKernels {
 public:
  explicit CpuWkv(Memory& memory) : memory_(memory) {}

  void wkv(const WkvForward& a) const override {
    dispatch_float(a.k.dtype(), [&]<class T>(Type<T>) { forward<T>(a); });
  }
  void wkv(const WkvBackward& a) const override {
    dispatch_float(a.k.dtype(), [&]<class T>(Type<T>) { backward<T>(a); });
  }

 private:
  template <class L>
  Tensor scratch(const Shape& shape) const {
    return {memory_, shape, TypeOf<L>::value};
  }

  /// w = -e^{time_decay}, and not beyond what vanishes at once: products with it stay finite.
  template <class L>
  Tensor decays(const Tensor& time_decay) const {
    const Tensor w = scratch<L>(time_decay.shape());
    for (std::int64_t c = 0; c < w.elements(); ++c)
      w.data<L>()[c] = std::max(static_cast<L>(kVanish), -std::exp(time_decay.data<L>()[c]));
    return w;
  }

  template <class L>
  static Plan<L> plan_of(const Sequences& sequences, const Tensor& w, const Tensor& time_first) {
    const std::int64_t channels = w.elements();
    return {.count = sequences.count,
            .length = sequences.length,
            .channels = channels,
            .chunks = wkv_chunks(sequences.length),
            .blocks = (channels + kBlock - 1) / kBlock,
            .sequences = sequences,
            .w = w.data<L>(),
            .u = time_first.data<L>()};
  }

  /// Calls f(sequence, block) for every block of channels, or f(sequence, chunk, block), over the threads.
  template <class L, class F>
  static void over_blocks(const Plan<L>& plan, F f) {
    parallel_chunks(
        {.items = plan.count * plan.blocks, .size = 1},
        [&](std::int64_t item, std::int64_t, std::int64_t) { f(item / plan.blocks, item % plan.blocks); });
  }
  template <class L, class F>
  static void over_chunks(const Plan<L>& plan, F f) {
    parallel_chunks({.items = plan.count * plan.chunks * plan.blocks, .size = 1},
                    [&](std::int64_t item, std::int64_t, std::int64_t) {
                      const std::int64_t line = item / plan.blocks;
                      f(line / plan.chunks, line % plan.chunks, item % plan.blocks);
                    });
  }

  template <class L>
  static void start(const WkvState& initial, const Plan<L>& plan, std::int64_t b, std::int64_t block,
                    const Sums<L>& state) {
    if (initial.p) {
      state.copy_from(sums_at<L>(initial, b * plan.channels + block * kBlock), plan.width(block));
    } else {
      state.clear(plan.width(block));
    }
  }
  template <class L>
  static void finish(const WkvState& last, const Plan<L>& plan, std::int64_t b, std::int64_t block,
                     const Sums<L>& state) {
    if (last.p) sums_at<L>(last, b * plan.channels + block * kBlock).copy_from(state, plan.width(block));
  }

  template <class T, class L = Lane<T>>
  void forward(const WkvForward& a) const {
    const Tensor w = decays<L>(a.time_decay);
    const Plan<L> plan = plan_of<L>(a.sequences, w, a.time_first);
    if (plan.chunks_in_parallel()) {
      forward_in_chunks<T>(a, plan);
      return;
    }
    L* const states = a.states ? a.states.data<L>() : nullptr;
    over_blocks(plan, [&](std::int64_t b, std::int64_t block) {
      OwnSums<L> own;
      const Sums<L> state = own.view();
      start(a.initial, plan, b, block, state);
      for (std::int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
        if (states != nullptr) plan.boundary(states, b, chunk, block).copy_from(state, plan.width(block));
        run_tokens<T>(a, plan, b, plan.begin(chunk), plan.end(chunk), block, state);
      }
      finish(a.last, plan, b, block, state);
    });
  }

  template <class T, class L = Lane<T>>
  void forward_in_chunks(const WkvForward& a, const Plan<L>& plan) const {
    const Tensor kept = a.states ? a.states : scratch<L>({plan.count, plan.chunks, 3, plan.channels});
    L* const states = kept.data<L>();
    over_chunks(plan, [&](std::int64_t b, std::int64_t chunk, std::int64_t block) {
      reduce_tokens<T>(a, plan, b, chunk, block, plan.boundary(states, b, chunk, block));
    });
    over_blocks(plan, [&](std::int64_t b, std::int64_t block) {
      OwnSums<L> own;
      const Sums<L> state = own.view();
      start(a.initial, plan, b, block, state);
      for (std::int64_t chunk = 0; chunk < plan.chunks; ++chunk)
        scan_step(plan, b, chunk, block, state, plan.boundary(states, b, chunk, block));
      finish(a.last, plan, b, block, state);
    });
    over_chunks(plan, [&](std::int64_t b, std::int64_t chunk, std::int64_t block) {
      OwnSums<L> own;
      own.view().copy_from(plan.boundary(states, b, chunk, block), plan.width(block));
      run_tokens<T>(a, plan, b, plan.begin(chunk), plan.end(chunk), block, own.view());
    });
  }

  /// The adjoint after the last token.
  template <class L>
  static void start_return(const WkvBackward& a, const Plan<L>& plan, std::int64_t b, std::int64_t block,
                           const Sums<L>& adjoint) {
    const std::int64_t width = plan.width(block), offset = b * plan.channels + block * kBlock;
    adjoint.clear(width);
    if (!a.last_gradient.a && !a.last_gradient.b) return;
    if (a.last_gradient.a) std::copy_n(a.last_gradient.a.data<L>() + offset, width, adjoint.a);
    if (a.last_gradient.b) std::copy_n(a.last_gradient.b.data<L>() + offset, width, adjoint.b);
    for (std::int64_t c = 0; c < width; ++c) adjoint.p[c] = -a.last_gradient.p.data<L>()[offset + c];
  }

  /// The gradient of the initial state from the adjoint before the first token.
  template <class L>
  static void finish_return(const WkvBackward& a, const Plan<L>& plan, std::int64_t b, std::int64_t block,
                            const Sums<L>& adjoint) {
    const std::int64_t offset = b * plan.channels + block * kBlock;
    const auto give = [&](const Target& target, const L* sums) {
      if (!target) return;
      L* to = target.tensor.data<L>() + offset;
      const L* p = a.initial.p.data<L>() + offset;
      for (std::int64_t c = 0; c < plan.width(block); ++c) {
        const L gradient = sums[c] * std::exp(adjoint.p[c] + p[c]);
        to[c] = target.accumulate ? to[c] + gradient : gradient;
      }
    };
    give(a.dinitial_a, adjoint.a);
    give(a.dinitial_b, adjoint.b);
  }

  template <class T, class L = Lane<T>>
  void backward(const WkvBackward& a) const {
    const Tensor w = decays<L>(a.time_decay);
    const Plan<L> plan = plan_of<L>(a.sequences, w, a.time_first);
    // dw and du of each sequence, or of each chunk of it, added in this order.
    const std::int64_t lines = plan.count * (plan.chunks_in_parallel() ? plan.chunks : 1);
    const Tensor partial = scratch<L>({lines, 2, plan.channels});
    if (plan.chunks_in_parallel()) {
      backward_in_chunks<T>(a, plan, partial.data<L>());
    } else {
      over_blocks(plan, [&](std::int64_t b, std::int64_t block) {
        backward_of_block<T>(a, plan, b, block, partial.data<L>() + b * 2 * plan.channels + block * kBlock);
      });
    }
    std::vector<L> dw(static_cast<std::size_t>(plan.channels)), du(dw.size());
    for (std::int64_t line = 0; line < lines; ++line) {
      const L* from = partial.data<L>() + line * 2 * plan.channels;
      add_line(dw.data(), from, plan.channels);
      add_line(du.data(), from + plan.channels, plan.channels);
    }
    for (std::size_t c = 0; c < dw.size(); ++c) dw[c] *= plan.w[c];  // d w / d time_decay = w
    give_vector(a.dtime_decay, dw);
    give_vector(a.dtime_first, du);
  }

  template <class L>
  static void give_vector(const Target& target, const std::vector<L>& values) {
    if (!target) return;
    L* to = target.tensor.data<L>();
    for (std::size_t c = 0; c < values.size(); ++c) to[c] = target.accumulate ? to[c] + values[c] : values[c];
  }

  template <class L>
  Tensor replay_memory() const {
    return scratch<L>({kWkvChunk, Replay<L>::kLines, kBlock});
  }

  template <class T, class L>
  void backward_of_block(const WkvBackward& a, const Plan<L>& plan, std::int64_t b, std::int64_t block,
                         L* line) const {
    const std::int64_t width = plan.width(block);
    const Tensor memory = replay_memory<L>();
    const Replay<L> replay{memory.data<L>()};
    OwnSums<L> own;
    const Sums<L> adjoint = own.view();
    start_return(a, plan, b, block, adjoint);
    std::fill_n(line, width, L{0});
    std::fill_n(line + plan.channels, width, L{0});
    for (std::int64_t chunk = plan.chunks; chunk-- > 0;) {
      // A sum for each chunk first: over long sequences small contributions would drown in the total.
      L dw[kBlock] = {}, du[kBlock] = {};
      replay_tokens<T>(a, plan, b, chunk, block, replay);
      return_tokens<true, T>(a, plan, b, chunk, block, replay, adjoint, dw, du);
      add_line(line, dw, width);
      add_line(line + plan.channels, du, width);
    }
    finish_return(a, plan, b, block, adjoint);
  }

  template <class T, class L>
  void backward_in_chunks(const WkvBackward& a, const Plan<L>& plan, L* partial) const {
    const Tensor kept = scratch<L>({plan.count, plan.chunks, 3, plan.channels});
    L* const adjoints = kept.data<L>();
    over_chunks(plan, [&](std::int64_t b, std::int64_t chunk, std::int64_t block) {
      const Tensor memory = replay_memory<L>();
      const Replay<L> replay{memory.data<L>()};
      replay_tokens<T>(a, plan, b, chunk, block, replay);
      const Sums<L> element = plan.boundary(adjoints, b, chunk, block);
      element.clear(plan.width(block));
      return_tokens<false, T>(a, plan, b, chunk, block, replay, element, static_cast<L*>(nullptr),
                              static_cast<L*>(nullptr));
    });
    over_blocks(plan, [&](std::int64_t b, std::int64_t block) {
      OwnSums<L> own;
      const Sums<L> adjoint = own.view();
      start_return(a, plan, b, block, adjoint);
      for (std::int64_t chunk = plan.chunks; chunk-- > 0;)
        scan_step(plan, b, chunk, block, adjoint, plan.boundary(adjoints, b, chunk, block));
      finish_return(a, plan, b, block, adjoint);
    });
    over_chunks(plan, [&](std::int64_t b, std::int64_t chunk, std::int64_t block) {
      const Tensor memory = replay_memory<L>();
      const Replay<L> replay{memory.data<L>()};
      L* line = partial + (b * plan.chunks + chunk) * 2 * plan.channels + block * kBlock;
      std::fill_n(line, plan.width(block), L{0});
      std::fill_n(line + plan.channels, plan.width(block), L{0});
      replay_tokens<T>(a, plan, b, chunk, block, replay);
      return_tokens<true, T>(a, plan, b, chunk, block, replay, plan.boundary(adjoints, b, chunk, block), line,
                             line + plan.channels);
    });
  }

  Memory& memory_;
};

std::unique_ptr<WkvKernels> make_wkv(Memory& memory) { return std::make_unique<CpuWkv>(memory); }

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_wkv);
std::unique_ptr<WkvKernels> make_wkv(Memory& memory) { return HWY_DYNAMIC_DISPATCH(make_wkv)(memory); }

}  // namespace bireme::cpu
#endif
