#include "core/cuda/activations.cuh"
#include "core/cuda/column_sums.cuh"
#include "core/cuda/cublaslt.h"
#include "core/cuda/cuda_kernels.h"
#include "core/cuda/elementwise.cuh"
#include "core/ops/dispatch.h"
#include "core/ops/linear/block_linear_cuda.cuh"
#include "core/ops/linear/linear_kernels.h"

namespace bireme::cuda {

namespace {

/// y = GELU(z). cuBLASLt's own GELU is the approximation by tanh, so this is a pass of its own.
template <class T>
struct EpilogueGeluOp {
  const T* z;
  T* y;

  template <int N>
  __device__ void run(std::int64_t i) const {
    auto v = load_pack<N>(z + i);
    for (int j = 0; j < N; ++j) v.v[j] = gelu(v.v[j]).value;
    store_pack<N>(y + i, v);
  }
};

/// z becomes dz = dy ∘ GELU'(z), and its columns are summed: one pass for both.
template <class T>
struct EpilogueGeluGradientOp {
  static constexpr int kSums = 1;
  const T* dy;
  T* z;
  std::int64_t channels;

  __device__ void add(std::int64_t row, std::int64_t column, Lane<T>* sums) const {
    const std::int64_t i = row * channels + column;
    const Lane<T> dz = load(dy + i) * gelu(load(z + i)).slope;
    store(z + i, dz);
    sums[0] += dz;
  }
};

template <class T>
struct SquaredReluOp {
  T* y;

  template <int N>
  __device__ void run(std::int64_t i) const {
    auto v = load_pack<N>(y + i);
    for (int j = 0; j < N; ++j) v.v[j] = v.v[j] > 0 ? v.v[j] * v.v[j] : 0;
    store_pack<N>(y + i, v);
  }
};

/// dz = 2 √y ∘ dy
template <class T>
struct SquaredReluGradientOp {
  const T *dy, *y;
  T* dz;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const auto v = load_pack<N>(y + i);
    auto g = load_pack<N>(dy + i);
    for (int j = 0; j < N; ++j) g.v[j] *= 2 * sqrt(v.v[j]);
    store_pack<N>(dz + i, g);
  }
};

template <class T>
struct BiasOp {
  T* y;
  const Lane<T>* bias;
  std::int64_t channels;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    store(y + i, load(y + i) + bias[i % channels]);
  }
};

class CudaLinear final : public LinearKernels {
 public:
  explicit CudaLinear(DeviceMemory& memory) : memory_(memory), products_(memory) {}

  void linear(const LinearForward& a) const override { forward(a.x, a.weight, a.bias, a.y); }
  void linear(const LinearBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      sum_columns<T>(memory_, a.dy.data<T>(), a.dy.rows(), a.dy.channels(), a.dbias);
    });
    backward(a.dy, a.x, a.weight, a.dx, a.dweight);
  }

  void linear_gelu(const LinearGeluForward& a) const override {
    forward(a.x, a.weight, a.bias, a.z);
    dispatch_float(a.z.dtype(), [&]<class T>(Type<T>) {
      const EpilogueGeluOp<T> op{a.z.data<T>(), a.y.data<T>()};
      run<kWidth<T>>(a.y.elements(), op, op.z, op.y);
    });
  }
  void linear_gelu(const LinearGeluBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      ColumnTargets<Lane<T>, 1> targets;
      targets.set(0, a.dbias);
      column_sums<EpilogueGeluGradientOp<T>, Lane<T>>(
          memory_, {a.dy.data<T>(), a.z.data<T>(), a.z.channels()}, a.z.rows(), a.z.channels(), targets);
    });
    backward(a.z, a.x, a.weight, a.dx, a.dweight);
  }

  void linear_squared_relu(const LinearSquaredReluForward& a) const override {
    forward(a.x, a.weight, {}, a.y);
    dispatch_float(a.y.dtype(), [&]<class T>(Type<T>) {
      const SquaredReluOp<T> op{a.y.data<T>()};
      run<kWidth<T>>(a.y.elements(), op, op.y);
    });
  }
  void linear_squared_relu(const LinearSquaredReluBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      const SquaredReluGradientOp<T> op{a.dy.data<T>(), a.y.data<T>(), a.dz.data<T>()};
      run<kWidth<T>>(a.y.elements(), op, op.dy, op.y, op.dz);
    });
    backward(a.dz, a.x, a.weight, a.dx, a.dweight);
  }

  void block_linear(const BlockLinearForward& a) const override { cuda::block_linear(memory_, a); }
  void block_linear(const BlockLinearBackward& a) const override { cuda::block_linear(memory_, a); }
  void gate_products(const GateProductsForward& a) const override { cuda::gate_products(memory_, a); }
  void gate_products(const GateProductsBackward& a) const override { cuda::gate_products(memory_, a); }
  void cap_gates(const CapGatesForward& a) const override { cuda::cap_gates(memory_, a); }
  void cap_gates(const CapGatesBackward& a) const override { cuda::cap_gates(memory_, a); }

 private:
  /// y = x · Wᵀ + bias. The bias is added by the product itself, in the type of y; fp64 has no such epilogue.
  void forward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y) const {
    const bool fused = bias.defined() && y.dtype() != DType::f64;
    Tensor rounded_bias = bias;
    if (fused && bias.dtype() != y.dtype()) rounded_bias = convert(memory_, bias, y.dtype());
    products_.run({.m = x.rows(),
                   .n = weight.rows(),
                   .k = x.channels(),
                   .transpose_b = true,
                   .input = x.dtype(),
                   .output = y.dtype(),
                   .a = x.raw(),
                   .b = weight.raw(),
                   .bias = fused ? rounded_bias.raw() : nullptr,
                   .c = y.raw()});
    if (bias.defined() && !fused)
      elementwise<1>(memory_.stream(), y.elements(), false,
                     BiasOp<double>{y.data<double>(), bias.data<double>(), y.channels()});
  }

  void backward(const Tensor& dy_given, const Tensor& x, const Tensor& weight, const Target& dx,
                const Target& dweight) const {
    const Tensor dy = dy_given.dtype() == x.dtype() ? dy_given : convert(memory_, dy_given, x.dtype());
    const std::int64_t rows = dy.rows(), out = dy.channels(), in = x.channels();
    if (dx) gradient({.m = rows, .n = in, .k = out, .a = dy.raw(), .b = weight.raw()}, x.dtype(), dx);
    if (dweight)
      gradient({.m = out, .n = in, .k = rows, .transpose_a = true, .a = dy.raw(), .b = x.raw()}, x.dtype(),
               dweight);
  }
  void gradient(Product product, DType input, const Target& to) const {
    product.input = input;
    product.output = to.tensor.dtype();
    product.accumulate = to.accumulate;
    product.c = to.tensor.raw();
    products_.run(product);
  }

  template <int Width, class Op, class... T>
  void run(std::int64_t elements, const Op& op, const T*... addresses) const {
    elementwise<Width>(memory_.stream(), elements, fits_packs(elements, Width, addresses...), op);
  }

  DeviceMemory& memory_;
  mutable MatrixProducts products_;  // remembers algorithms
};

}  // namespace

std::unique_ptr<LinearKernels> make_linear(DeviceMemory& memory) {
  return std::make_unique<CudaLinear>(memory);
}

}  // namespace bireme::cuda
