#include "core/cuda/cuda_kernels.h"
#include "core/ops/dispatch.h"
#include "core/ops/slstm/slstm_cells_cuda.cuh"
#include "core/ops/slstm/slstm_kernels.h"
#include "core/ops/slstm/slstm_weights_cuda.cuh"

namespace bireme::cuda {

namespace {

template <class L>
SlstmEnds<const L> ends_to_read(const SlstmStateTensors& state) {
  return {data_or_null<L>(state.h), data_or_null<L>(state.c), data_or_null<L>(state.n),
          data_or_null<L>(state.m)};
}

class CudaSlstm final : public SlstmKernels {
 public:
  explicit CudaSlstm(DeviceMemory& memory) : memory_(memory), most_shared_(shared_memory_of_block()) {}

  void slstm(const SlstmForward& a) const override {
    dispatch_float(a.h.dtype(), [&]<class T>(Type<T>) {
      with_function(a.function, [&](auto classical) {
        with_held<Lane<T>>(a.sizes, slstm_forward_room, [&](auto held, const SlstmShape& s) {
          forward<decltype(classical)::value, decltype(held)::value, T>(a, s);
        });
      });
    });
  }
  void slstm(const SlstmBackward& a) const override {
    dispatch_float(a.dh.defined() ? a.dh.dtype() : a.hidden.dtype(), [&]<class T>(Type<T>) {
      with_function(a.function, [&](auto classical) {
        with_held<Lane<T>>(a.sizes, slstm_backward_room, [&](auto held, const SlstmShape& s) {
          backward<decltype(classical)::value, decltype(held)::value, T>(a, s);
        });
      });
    });
  }

 private:
  template <class F>
  static void with_function(SlstmFunction function, F&& f) {
    if (function == SlstmFunction::lstm) return f(std::true_type{});
    return f(std::false_type{});
  }

  /// Calls f(constant of the numbers of R that a thread holds, shape): as much of R on chip as fits.
  template <class L, class Room, class F>
  void with_held(const SlstmSizes& sizes, const Room& room, F&& f) const {
    SlstmShape s{.time = sizes.time,
                 .heads = sizes.heads,
                 .units = static_cast<int>(sizes.units),
                 .padded = static_cast<int>(ceil_div(sizes.units, kSlstmHeld)) * kSlstmHeld,
                 .lines = static_cast<int>(ceil_div(4 * sizes.units, kWarp)) * kWarp,
                 .in_shared = 0};
    if (sizes.sequences * sizes.heads == 0) return;
    const bool is_held = s.lines <= kSlstmHeldThreads;
    const std::int64_t left = most_shared_ / static_cast<std::int64_t>(sizeof(L)) - room(s),
                       wanted = s.units - (is_held ? kSlstmHeld : 0);
    s.in_shared = static_cast<int>(std::max<std::int64_t>(0, std::min<std::int64_t>(wanted, left / s.lines)));
    if (is_held) return f(std::integral_constant<int, kSlstmHeld>{}, s);
    return f(std::integral_constant<int, 0>{}, s);
  }

  template <int kHeld>
  static Grid grid_of(const SlstmShape& s, std::int64_t sequences, std::int64_t bytes) {
    return {{to_unsigned(s.heads), to_unsigned(sequences)},
            {to_unsigned(std::min(s.lines, kSlstmThreads<kHeld>))},
            static_cast<std::size_t>(bytes)};
  }

  template <bool kClassical, int kHeld, class T>
  void forward(const SlstmForward& a, const SlstmShape& s) const {
    using L = Lane<T>;
    const Tensor starts = memory_.here(a.starts);
    launch(memory_.stream(),
           grid_of<kHeld>(s, a.sizes.sequences, slstm_forward_room(s) * std::int64_t{sizeof(L)}),
           slstm_forward_kernel<kClassical, kHeld, T>, s,
           SlstmPass<T>{
               .gates = a.gates.data<L>(),
               .recurrent = a.recurrent.data<L>(),
               .bias = a.bias.data<L>(),
               .starts = data_or_null<std::uint8_t>(starts),
               .before = ends_to_read<L>(a.before),
               .after = {a.after.h.data<L>(), a.after.c.data<L>(), a.after.n.data<L>(), a.after.m.data<L>()},
               .h = a.h.data<T>(),
               .hidden = data_or_null<L>(a.hidden),
               .kept = data_or_null<L>(a.kept)});
  }

  template <bool kClassical, int kHeld, class T>
  void backward(const SlstmBackward& a, const SlstmShape& s) const {
    using L = Lane<T>;
    const Tensor starts = memory_.here(a.starts);
    const std::int64_t rows = a.sizes.sequences * a.sizes.time;
    // dR and db want this pass's gradients alone.
    const bool alone = a.dgates && !a.dgates.accumulate;
    const Tensor dgates =
        alone ? a.dgates.tensor : Tensor(memory_, {rows, s.heads * 4 * s.units}, TypeOf<L>::value);
    SlstmReturn<T> pass{.dh = data_or_null<T>(a.dh),
                        .dafter = ends_to_read<L>(a.dafter),
                        .recurrent = a.recurrent.data<L>(),
                        .starts = data_or_null<std::uint8_t>(starts),
                        .before = ends_to_read<L>(a.before),
                        .hidden = a.hidden.data<L>(),
                        .kept = a.kept.data<L>(),
                        .dgates = dgates.data<L>()};
    if (a.dgates && !alone) pass.added_dgates = a.dgates.tensor.data<L>();
    const auto set = [](const Target& to, L*& address, bool& accumulate) {
      if (to) address = to.tensor.data<L>(), accumulate = to.accumulate;
    };
    set(a.dbefore_h, pass.dbefore.h, pass.add_h);
    set(a.dbefore_c, pass.dbefore.c, pass.add_c);
    set(a.dbefore_n, pass.dbefore.n, pass.add_n);
    launch(memory_.stream(),
           grid_of<kHeld>(s, a.sizes.sequences, slstm_backward_room(s) * std::int64_t{sizeof(L)}),
           slstm_backward_kernel<kClassical, kHeld, T>, s, pass, slstm_gate_row(s.padded));
    slstm_weight_gradients<L>(memory_,
                              {.dgates = pass.dgates,
                               .hidden = pass.hidden,
                               .before = pass.before.h,
                               .starts = pass.starts,
                               .time = s.time,
                               .heads = s.heads,
                               .units = s.units,
                               .rows = rows},
                              a.drecurrent, a.dbias);
  }

  DeviceMemory& memory_;
  std::int64_t most_shared_;
};

}  // namespace

std::unique_ptr<SlstmKernels> make_slstm(DeviceMemory& memory) { return std::make_unique<CudaSlstm>(memory); }

}  // namespace bireme::cuda
