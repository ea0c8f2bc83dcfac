#include "core/cuda/activations.cuh"
#include "core/cuda/column_sums.cuh"
#include "core/cuda/cuda_kernels.h"
#include "core/cuda/elementwise.cuh"
#include "core/ops/dispatch.h"
#include "core/ops/pointwise/gates_cuda.cuh"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme::cuda {

namespace {

/// to (+)= factor · by · from
template <class F, class T>
struct ScaleOp {
  const F* from;
  T* to;
  Lane<F> factor;
  const Lane<F>* by;  // or null
  bool accumulate, is_in_place;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const Lane<F> total = by != nullptr ? factor * *by : factor;
    if (total == 1 && is_in_place && !accumulate) return;
    const auto x = load_pack<N>(from + i);
    Pack<Lane<T>, N> y;
    for (int j = 0; j < N; ++j) y.v[j] = static_cast<Lane<T>>(total * x.v[j]);
    contribute_pack<N>(to + i, y, accumulate);
  }
};

/// y = x + scale[row] ∘ branch
template <class X, class B>
struct ResidualAddOp {
  const X* x;
  const B* branch;
  const Lane<X>* scale;
  X* y;
  std::int64_t channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const Lane<X> s = scale != nullptr ? scale[i / channels] : Lane<X>{1};
    auto sum = load_pack<N>(x + i);
    const auto b = load_pack<N>(branch + i);
    for (int j = 0; j < N; ++j) sum.v[j] = s * b.v[j] + sum.v[j];
    store_pack<N>(y + i, sum);
  }
};

/// dbranch (+)= scale[row] ∘ dy
template <class X, class B>
struct ResidualGradientOp {
  const X* dy;
  const Lane<X>* scale;
  B* dbranch;
  bool accumulate;
  std::int64_t channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const Lane<X> s = scale != nullptr ? scale[i / channels] : Lane<X>{1};
    const auto g = load_pack<N>(dy + i);
    Pack<Lane<B>, N> to;
    for (int j = 0; j < N; ++j) to.v[j] = static_cast<Lane<B>>(s * g.v[j]);
    contribute_pack<N>(dbranch + i, to, accumulate);
  }
};

template <class T>
struct AddBiasOp {
  const T* x;
  const Lane<T>* bias;
  T* y;
  std::int64_t channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    auto sum = load_pack<N>(x + i);
    const auto b = load_pack<N>(bias + i % channels);
    for (int j = 0; j < N; ++j) sum.v[j] += b.v[j];
    store_pack<N>(y + i, sum);
  }
};

template <class T>
struct GeluOp {
  const T* x;
  T* y;

  template <int N>
  __device__ void run(std::int64_t i) const {
    auto v = load_pack<N>(x + i);
    for (int j = 0; j < N; ++j) v.v[j] = gelu(v.v[j]).value;
    store_pack<N>(y + i, v);
  }
};

template <class T>
struct GeluGradientOp {
  const T *dy, *x;
  T* dx;
  bool accumulate;

  template <int N>
  __device__ void run(std::int64_t i) const {
    auto v = load_pack<N>(x + i);
    const auto g = load_pack<N>(dy + i);
    for (int j = 0; j < N; ++j) v.v[j] = g.v[j] * gelu(v.v[j]).slope;
    contribute_pack<N>(dx + i, v, accumulate);
  }
};

/// One thread a pair of components: (x_j, x_{j + half}) of a head of a row.
template <class T>
struct RotateOp {
  T* x;
  const Lane<T>*cosines, *sines;
  const std::int32_t* positions;
  std::int64_t half, heads, channels;
  Lane<T> sign;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t j = i % half, head = i / half % heads, row = i / half / heads;
    const std::int64_t angle = positions[row] * half + j;
    const Lane<T> cosine = cosines[angle], sine = sign * sines[angle];
    T *low = x + row * channels + 2 * head * half + j, *high = low + half;
    const Lane<T> a = load(low), b = load(high);
    store(low, a * cosine - b * sine);
    store(high, b * cosine + a * sine);
  }
};

class CudaPointwise final : public PointwiseKernels {
 public:
  explicit CudaPointwise(DeviceMemory& memory) : memory_(memory) {}

  void add(const Add& a) const override { scale({.x = a.from, .factor = 1, .to = {a.to, a.accumulate}}); }
  void scale(const Scale& a) const override {
    dispatch_floats(a.x.dtype(), a.to.tensor.dtype(), [&]<class F, class T>(Type<F>, Type<T>) {
      const F* from = a.x.data<F>();
      T* to = a.to.tensor.data<T>();
      run<kWidth<F, T>>(a.x.elements(), a.x.elements(),
                        ScaleOp<F, T>{from, to, static_cast<Lane<F>>(a.factor), data_or_null<Lane<F>>(a.by),
                                      a.to.accumulate, static_cast<const void*>(from) == to},
                        from, to);
    });
  }
  void residual_add(const ResidualAddForward& a) const override {
    dispatch_floats(a.x.dtype(), a.branch.dtype(), [&]<class X, class B>(Type<X>, Type<B>) {
      const ResidualAddOp<X, B> op{a.x.data<X>(), a.branch.data<B>(), data_or_null<Lane<X>>(a.scale),
                                   a.y.data<X>(), a.x.channels()};
      run<kWidth<X, B>>(a.x.elements(), a.x.channels(), op, op.x, op.branch, op.y);
    });
  }
  void residual_add(const ResidualAddBackward& a) const override {
    dispatch_floats(a.dy.dtype(), a.dbranch.tensor.dtype(), [&]<class X, class B>(Type<X>, Type<B>) {
      const ResidualGradientOp<X, B> op{a.dy.data<X>(), data_or_null<Lane<X>>(a.scale),
                                        a.dbranch.tensor.data<B>(), a.dbranch.accumulate, a.dy.channels()};
      run<kWidth<X, B>>(a.dy.elements(), a.dy.channels(), op, op.dy, op.dbranch);
    });
  }
  void add_bias(const AddBias& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      const AddBiasOp<T> op{a.x.data<T>(), a.bias.data<Lane<T>>(), a.y.data<T>(), a.x.channels()};
      run<kWidth<T>>(a.x.elements(), a.x.channels(), op, op.x, op.bias, op.y);
    });
  }
  void add_bias(const AddBiasBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      sum_columns<T>(memory_, a.dy.data<T>(), a.dy.rows(), a.dy.channels(), a.dbias);
    });
  }
  void sigmoid_gate(const SigmoidGateForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      const SigmoidGateOp<T> op{a.r.data<T>(), a.x.data<T>(), a.y.data<T>()};
      run<kWidth<T>>(a.x.elements(), a.x.elements(), op, op.r, op.x, op.y);
    });
  }
  void sigmoid_gate(const SigmoidGateBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      SigmoidGateGradientOp<T> op{.dy = a.dy.data<T>(), .r = a.r.data<T>(), .x = a.x.data<T>()};
      if (a.dr) op.dr = a.dr.tensor.data<T>(), op.add_r = a.dr.accumulate;
      if (a.dx) op.dx = a.dx.tensor.data<T>(), op.add_x = a.dx.accumulate;
      run<kWidth<T>>(a.x.elements(), a.x.elements(), op, op.dy, op.r, op.x, op.dr, op.dx);
    });
  }
  void silu_gate(const SiluGateForward& a) const override {
    activation_gate(ActivationGateForward{.x = a.x, .y = a.y, .activation = Activation::silu});
  }
  void silu_gate(const SiluGateBackward& a) const override {
    activation_gate(ActivationGateBackward{.dy = a.dy, .x = a.x, .activation = Activation::silu, .dx = a.dx});
  }
  void rotate(const Rotate& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      using L = Lane<T>;
      const Tensor positions = memory_.here(a.positions), cosines = memory_.here(a.table.cosines),
                   sines = memory_.here(a.table.sines);
      const RotateOp<T> op{.x = a.x.data<T>(),
                           .cosines = cosines.data<L>(),
                           .sines = sines.data<L>(),
                           .positions = positions.data<std::int32_t>(),
                           .half = a.table.cosines.channels(),
                           .heads = a.heads,
                           .channels = a.x.channels(),
                           .sign = a.backwards ? L{-1} : L{1}};
      elementwise<1>(memory_.stream(), a.x.rows() * op.heads * op.half, false, op);
    });
  }
  void skip_gate(const SkipGateForward& a) const override {
    dispatch_float(a.h.dtype(), [&]<class T>(Type<T>) {
      const SkipGateOp<T> op{a.h.data<T>(), a.u.data<T>(), a.skip.data<Lane<T>>(),
                             a.z.data<T>(), a.y.data<T>(), a.h.channels()};
      run<kWidth<T>>(a.h.elements(), a.h.channels(), op, op.h, op.u, op.skip, op.z, op.y);
    });
  }
  void skip_gate(const SkipGateBackward& a) const override {
    dispatch_float(a.h.dtype(), [&]<class T>(Type<T>) {
      SkipGateGradientOp<T> op{.dy = a.dy.data<T>(),
                               .h = a.h.data<T>(),
                               .u = a.u.data<T>(),
                               .skip = a.skip.data<Lane<T>>(),
                               .z = a.z.data<T>(),
                               .channels = a.h.channels()};
      if (a.dh) op.dh = a.dh.tensor.data<T>(), op.add_h = a.dh.accumulate;
      if (a.du) op.du = a.du.tensor.data<T>(), op.add_u = a.du.accumulate;
      if (a.dz) op.dz = a.dz.tensor.data<T>(), op.add_z = a.dz.accumulate;
      if (a.dskip) {
        ColumnTargets<Lane<T>, 1> targets;
        targets.set(0, a.dskip);
        return column_sums<SkipGateGradientOp<T>, Lane<T>>(memory_, op, a.h.rows(), op.channels, targets);
      }
      run<kWidth<T>>(a.h.elements(), op.channels, op, op.dy, op.h, op.u, op.skip, op.z, op.dh, op.du, op.dz);
    });
  }
  void activation_gate(const ActivationGateForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      dispatch_activation(a.activation, [&]<Activation kActivation>(Chosen<kActivation>) {
        const ActivationGateOp<T, kActivation> op{a.x.data<T>(), a.y.data<T>(), a.y.channels()};
        run<kWidth<T>>(a.y.elements(), a.y.channels(), op, op.x, op.y);
      });
    });
  }
  void activation_gate(const ActivationGateBackward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      dispatch_activation(a.activation, [&]<Activation kActivation>(Chosen<kActivation>) {
        const ActivationGateGradientOp<T, kActivation> op{
            a.dy.data<T>(), a.x.data<T>(), a.dx.tensor.data<T>(), a.dx.accumulate, a.dy.channels()};
        run<kWidth<T>>(a.dy.elements(), a.dy.channels(), op, op.dy, op.x, op.dx);
      });
    });
  }
  void gelu(const GeluForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      const GeluOp<T> op{a.x.data<T>(), a.y.data<T>()};
      run<kWidth<T>>(a.x.elements(), a.x.elements(), op, op.x, op.y);
    });
  }
  void gelu(const GeluBackward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      const GeluGradientOp<T> op{a.dy.data<T>(), a.x.data<T>(), a.dx.tensor.data<T>(), a.dx.accumulate};
      run<kWidth<T>>(a.x.elements(), a.x.elements(), op, op.dy, op.x, op.dx);
    });
  }

 private:
  /// Packs where rows divide and all addresses are aligned.
  template <int Width, class Op, class... T>
  void run(std::int64_t elements, std::int64_t row, const Op& op, const T*... addresses) const {
    elementwise<Width>(memory_.stream(), elements, fits_packs(row, Width, addresses...), op);
  }

  DeviceMemory& memory_;
};

}  // namespace

std::unique_ptr<PointwiseKernels> make_pointwise(DeviceMemory& memory) {
  return std::make_unique<CudaPointwise>(memory);
}

}  // namespace bireme::cuda
