#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/wkv/wkv_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include "core/cpu/cpu_kernels.h"
#include "core/cpu/parallel.h"
#include "core/ops/dispatch.h"
#include "core/ops/wkv/wkv_kernels.h"
#include "core/ops/wkv/wkv_tokens-inl.h"

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
    // In decoding a block is one token of 64 channels, for which no thread is worth waking.
    constexpr std::int64_t kFewestNumbers = 4096;
    const std::int64_t size =
        std::max<std::int64_t>(1, kFewestNumbers / (kBlock * std::max<std::int64_t>(1, plan.length)));
    parallel_chunks({.items = plan.count * plan.blocks, .size = size},
                    [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                      for (std::int64_t item = begin; item < end; ++item)
                        f(item / plan.blocks, item % plan.blocks);
                    });
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
