#include "core/cuda/column_sums.cuh"
#include "core/cuda/cuda_kernels.h"
#include "core/ops/dispatch.h"
#include "core/ops/wkv/wkv_kernels.h"
#include "core/ops/wkv/wkv_tokens_cuda.cuh"

namespace bireme::cuda {

namespace {

/// dtime_decay and dtime_first: chunks are added in order; d w / d time_decay = w.
template <class L>
struct WkvLineOp {
  static constexpr int kSums = 2;
  const L *partial, *time_decay;
  std::int64_t channels;
  __device__ void add(std::int64_t line, std::int64_t c, L* sums) const {
    sums[0] += partial[2 * line * channels + c] * wkv_decay(time_decay[c]);
    sums[1] += partial[(2 * line + 1) * channels + c];
  }
};

class CudaWkv final : public WkvKernels {
 public:
  explicit CudaWkv(DeviceMemory& memory) : memory_(memory) {}

  void wkv(const WkvForward& a) const override {
    dispatch_float(a.k.dtype(), [&]<class T>(Type<T>) { forward<T>(a); });
  }
  void wkv(const WkvBackward& a) const override {
    dispatch_float(a.k.dtype(), [&]<class T>(Type<T>) { backward<T>(a); });
  }

 private:
  /// Chunks run beside each other: each gives its element of the scan, the scan its state, and with that it
  /// runs again.
  template <class T>
  void forward(const WkvForward& a) const {
    using L = Lane<T>;
    const Tensor starts = memory_.here(a.sequences.starts);
    const WkvTokens<T> s = tokens_of<T>(a, starts);
    if (s.sequences == 0) return;
    const Tensor kept = a.states ? a.states : boundaries<L>(s);
    if (s.chunks > 0) launch(memory_.stream(), chunk_grid(s), wkv_reduce_kernel<T>, s, kept.data<L>());
    launch(memory_.stream(), scan_grid(s), wkv_scan_kernel<T>, s, kept.data<L>(), sums_of<L>(a.initial),
           sums_of<L>(a.last));
    if (s.chunks == 0) return;
    launch(memory_.stream(), chunk_grid(s), wkv_forward_kernel<T>, s, kept.data<L>(), a.y.data<T>());
  }

  template <class T>
  void backward(const WkvBackward& a) const {
    using L = Lane<T>;
    const Tensor starts = memory_.here(a.sequences.starts);
    const WkvTokens<T> s = tokens_of<T>(a, starts);
    WkvGradients<T> g{.dy = a.dy.data<T>(), .states = a.states.data<L>()};
    const Tensor adjoints = boundaries<L>(s),
                 partial(memory_, {s.sequences * s.chunks, 2, s.channels}, TypeOf<L>::value);
    g.adjoints = adjoints.data<L>();
    g.partial = partial.data<L>();
    Grid grid = chunk_grid(s);
    grid.shared_bytes = sizeof(L) * 3 * kWkvChunk * kWkvThreads;
    launch(memory_.stream(), grid, wkv_return_kernel<false, T>, s, g);
    launch(memory_.stream(), scan_grid(s), wkv_return_scan_kernel<T>, s, adjoints.data<L>(),
           sums_of<L>(a.last_gradient),
           InitialGradient<L>{data_or_null<L>(a.initial.p), data_or_null<L>(a.dinitial_a.tensor),
                              data_or_null<L>(a.dinitial_b.tensor), a.dinitial_a.accumulate,
                              a.dinitial_b.accumulate});
    const auto set = [](const Target& to, T*& address, bool& accumulate) {
      if (to) address = to.tensor.data<T>(), accumulate = to.accumulate;
    };
    set(a.dr, g.dr, g.add_r);
    set(a.dk, g.dk, g.add_k);
    set(a.dv, g.dv, g.add_v);
    launch(memory_.stream(), grid, wkv_return_kernel<true, T>, s, g);
    ColumnTargets<L, 2> targets;
    targets.set(0, a.dtime_decay);
    targets.set(1, a.dtime_first);
    column_sums<WkvLineOp<L>, L>(memory_, {partial.data<L>(), s.time_decay, s.channels},
                                 s.sequences * s.chunks, s.channels, targets);
  }

  template <class L, class T>
  Tensor boundaries(const WkvTokens<T>& s) const {
    return {memory_, {s.sequences, s.chunks, 3, s.channels}, TypeOf<L>::value};
  }
  template <class L>
  static WkvSums<L> sums_of(const WkvState& state) {
    return {data_or_null<L>(state.a), data_or_null<L>(state.b), data_or_null<L>(state.p)};
  }
  template <class T, class A>
  static WkvTokens<T> tokens_of(const A& a, const Tensor& starts) {
    return {.r = a.r.template data<T>(),
            .k = a.k.template data<T>(),
            .v = a.v.template data<T>(),
            .time_decay = a.time_decay.template data<Lane<T>>(),
            .time_first = a.time_first.template data<Lane<T>>(),
            .starts = data_or_null<std::uint8_t>(starts),
            .sequences = a.sequences.count,
            .length = a.sequences.length,
            .chunks = wkv_chunks(a.sequences.length),
            .channels = a.k.channels()};
  }
  template <class T>
  static Grid chunk_grid(const WkvTokens<T>& s) {
    return {{to_unsigned(ceil_div(s.channels, kWkvThreads)), to_unsigned(s.chunks), to_unsigned(s.sequences)},
            {kWkvThreads}};
  }
  template <class T>
  static Grid scan_grid(const WkvTokens<T>& s) {
    return {{to_unsigned(ceil_div(s.channels, kWkvThreads)), 1, to_unsigned(s.sequences)}, {kWkvThreads}};
  }

  DeviceMemory& memory_;
};

}  // namespace

std::unique_ptr<WkvKernels> make_wkv(DeviceMemory& memory) { return std::make_unique<CudaWkv>(memory); }

}  // namespace bireme::cuda
