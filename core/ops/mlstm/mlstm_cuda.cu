#include <utility>

#include "core/cuda/cuda_kernels.h"
#include "core/ops/dispatch.h"
#include "core/ops/mlstm/mlstm_backward_cuda.cuh"
#include "core/ops/mlstm/mlstm_forward_cuda.cuh"
#include "core/ops/mlstm/mlstm_step_cuda.cuh"

namespace bireme::cuda {

namespace {

class CudaMlstm final : public MlstmKernels {
 public:
  explicit CudaMlstm(DeviceMemory& memory) : memory_(memory) {}

  void mlstm(const MlstmForward& a) const override {
    dispatch_float(a.q.dtype(), [&]<class T>(Type<T>) { forward<T>(a); });
  }
  void mlstm(const MlstmBackward& a) const override {
    dispatch_float(a.q.dtype(), [&]<class T>(Type<T>) { backward<T>(a); });
  }
  void step(const MlstmStep& a) const override {
    dispatch_float(a.q.dtype(), [&]<class T>(Type<T>) { step<T>(a); });
  }

 private:
  template <class T>
  void forward(const MlstmForward& a) const {
    using L = Lane<T>;
    const Tensor starts = memory_.here(a.starts);
    const auto s = mlstm_lines<T>(a, starts);
    const Tensor shares = scratch<L>(s.lines * s.time), largest = scratch<L>(s.lines * s.chunks),
                 carries = scratch<L>(s.lines * s.chunks);
    const MlstmScratch<L> between{shares.data<L>(), largest.data<L>(), carries.data<L>()};
    launch(memory_.stream(),
           {{to_unsigned(ceil_div(s.chunks, kMlstmWarps)), to_unsigned(s.lines)}, {kMlstmWarps * kWarp}},
           mlstm_gates_kernel<T>, s, a.gates.data<L>(), between);
    launch(memory_.stream(), mlstm_state_grid(s), mlstm_contribution_kernel<T>, s, between);
    launch(memory_.stream(), mlstm_carry_grid(s), mlstm_carry_kernel<T>, s, between,
           MlstmEnds<L>{data_or_null<L>(a.memory), data_or_null<L>(a.normalizer), data_or_null<L>(a.maximum),
                        a.memory_out.data<L>(), a.normalizer_out.data<L>(), a.maximum_out.data<L>()});
    launch(memory_.stream(), mlstm_tile_grid(s, kMlstmOutputRoom), mlstm_output_kernel<T>, s, a.h.data<T>(),
           a.epsilon);
  }

  template <class T>
  void backward(const MlstmBackward& a) const {
    using L = Lane<T>;
    const Tensor starts = memory_.here(a.starts);
    const auto s = mlstm_lines<T>(a, starts);
    const Tensor positions = scratch<L>(6 * s.lines * s.time),
                 states(memory_, a.saved.states.shape(), a.saved.states.dtype());
    const Tensor flow(memory_, {a.dgates ? s.lines * ceil_div(s.chunk, kTile) * s.time : 0}, DType::f64);
    L* place = positions.data<L>();
    const auto next = [&] { return std::exchange(place, place + s.lines * s.time); };
    MlstmReturn<T> g{.dh = a.dh.data<T>(),
                     .h = a.h.data<T>(),
                     .lambda = next(),
                     .beta = next(),
                     .gamma = next(),
                     .inverse = next(),
                     .into_query = next(),
                     .into_key = next(),
                     .states = states.data<L>(),
                     .flow = flow.data<double>(),
                     .normalizer_gradient = a.normalizer_gradient};
    const auto set = [](const Target& to, auto*& address, bool& accumulate) {
      if (to)
        address = to.tensor.data<std::remove_reference_t<decltype(*address)>>(), accumulate = to.accumulate;
    };
    set(a.dq, g.dq, g.add_q);
    set(a.dk, g.dk, g.add_k);
    set(a.dv, g.dv, g.add_v);
    set(a.dgates, g.dgates, g.add_gates);
    launch(memory_.stream(),
           {{to_unsigned(ceil_div(s.time, kMlstmWarps)), to_unsigned(s.lines)}, {kMlstmWarps * kWarp}},
           mlstm_position_kernel<T>, s, g);
    launch(memory_.stream(), mlstm_state_grid(s), mlstm_state_gradient_kernel<T>, s, g);
    launch(memory_.stream(), mlstm_carry_grid(s), mlstm_carry_back_kernel<T>, s, g,
           MlstmEndGradients<L>{data_or_null<L>(a.dmemory_out), data_or_null<L>(a.dnormalizer_out),
                                data_or_null<L>(a.dmemory.tensor), data_or_null<L>(a.dnormalizer.tensor),
                                a.dmemory.accumulate, a.dnormalizer.accumulate});
    launch(memory_.stream(), mlstm_tile_grid(s, kMlstmReturnRoom), mlstm_query_gradient_kernel<T>, s, g);
    launch(memory_.stream(), mlstm_tile_grid(s, kMlstmReturnRoom), mlstm_key_gradient_kernel<T>, s, g);
    if (g.dv != nullptr)
      launch(memory_.stream(), mlstm_tile_grid(s, kMlstmReturnRoom), mlstm_value_gradient_kernel<T>, s, g);
    if (!a.dgates) return;
    launch(memory_.stream(), mlstm_tile_grid(s, kMlstmReturnRoom), mlstm_flow_kernel<T>, s, g);
    launch(memory_.stream(), {{to_unsigned(s.chunks), to_unsigned(s.lines)}, {kForgetThreads}},
           mlstm_forget_gradient_kernel<T>, s, g, a.gates.data<L>());
  }

  template <class T>
  void step(const MlstmStep& a) const {
    using L = Lane<T>;
    const Shape& shape = a.memory.shape();
    const std::int64_t lines = shape[0] * shape[1];
    const Tensor weights = scratch<L>(3 * lines);
    const MlstmToken<T> token{.q = a.q.data<T>(),
                              .k = a.k.data<T>(),
                              .v = a.v.data<T>(),
                              .gates = a.gates.data<L>(),
                              .memory = a.memory.data<L>(),
                              .normalizer = a.normalizer.data<L>(),
                              .maximum = a.maximum.data<L>(),
                              .weights = weights.data<L>(),
                              .h = a.h.data<T>(),
                              .heads = shape[1],
                              .keys = shape[2],
                              .values = shape[3],
                              .scale = 1 / std::sqrt(static_cast<L>(shape[2])),
                              .epsilon = static_cast<L>(a.epsilon)};
    launch(memory_.stream(), {{to_unsigned(lines)}, {kStepThreads}}, mlstm_step_normalizer_kernel<T>, token);
    launch(memory_.stream(), {{to_unsigned(ceil_div(shape[3], kWarp)), to_unsigned(lines)}, {kStepThreads}},
           mlstm_step_memory_kernel<T>, token);
  }

  template <class L>
  Tensor scratch(std::int64_t count) const {
    return {memory_, {count}, TypeOf<L>::value};
  }

  DeviceMemory& memory_;
};

}  // namespace

std::unique_ptr<MlstmKernels> make_mlstm(DeviceMemory& memory) { return std::make_unique<CudaMlstm>(memory); }

}  // namespace bireme::cuda
