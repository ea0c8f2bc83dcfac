#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/linear/linear_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include "core/cpu/cpu_kernels.h"
#include "core/cpu/onednn.h"
#include "core/cpu/partial_sums.h"
#include "core/cpu/simd.h"
#include "core/cpu/thin_products-inl.h"
#include "core/ops/dispatch.h"
#include "core/ops/linear/block_linear_cpu.h"
#include "core/ops/linear/linear_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

// Rows of a fused product and activation: 96 rows of 768 fp32 numbers are 300 KB, which a second-level cache
// holds while the activation runs over them.
constexpr std::int64_t kFusedRows = 96;

template <class T>
void gelu_values(const T* z, T* y, std::int64_t count) {
  const Lanes<T> d;
  for_vectors(d, count, [&](std::int64_t i, auto part) HWY_ATTR {
    store(d, gelu(d, load(d, z + i, part)), y + i, part);
  });
}

/// dz = dy ∘ GELU'(z) over z, and the sum of its rows into dbias.
template <class T>
void gelu_gradient_rows(const T* dy, T* z, Lane<T>* dbias, std::int64_t rows, std::int64_t channels) {
  const Lanes<T> d;
  for (std::int64_t r = 0; r < rows; ++r) {
    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
      const std::int64_t i = r * channels + c;
      const auto dz = hn::Mul(load(d, dy + i, part), gelu_gradient(d, load(d, z + i, part)));
      store(d, dz, z + i, part);
      store(d, hn::Add(load(d, dbias + c, part), dz), dbias + c, part);
    });
  }
}

/// y = relu(y)², in place.
template <class T>
void squared_relu_values(T* y, std::int64_t count) {
  const Lanes<T> d;
  for_vectors(d, count, [&](std::int64_t i, auto part) HWY_ATTR {
    const auto positive = hn::Max(load(d, y + i, part), hn::Zero(d));
    store(d, hn::Mul(positive, positive), y + i, part);
  });
}

/// dz = 2 √y ∘ dy: the derivative of z², and 0 where z was not positive.
template <class T>
void squared_relu_gradient_values(const T* dy, const T* y, T* dz, std::int64_t count) {
  const Lanes<T> d;
  for_vectors(d, count, [&](std::int64_t i, auto part) HWY_ATTR {
    const auto root = hn::Sqrt(load(d, y + i, part));
    store(d, hn::Mul(hn::Add(root, root), load(d, dy + i, part)), dz + i, part);
  });
}

template <class T>
void add_rows(const T* x, Lane<T>* sum, std::int64_t rows, std::int64_t channels) {
  const Lanes<T> d;
  for (std::int64_t r = 0; r < rows; ++r) {
    for_vectors(d, channels, [&](std::int64_t c, auto part) HWY_ATTR {
      store(d, hn::Add(load(d, sum + c, part), load(d, x + r * channels + c, part)), sum + c, part);
    });
  }
}

/// fp64 exists for checks of gradients: plain loops, rows of C spread over threads.
void product_f64(const Product& p, const double* a, const double* b, double* c) {
  parallel_rows(p.m, p.k * p.n, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t j = 0; j < p.n; ++j) {
        double sum = p.accumulate ? c[i * p.n + j] : 0;
        for (std::int64_t k = 0; k < p.k; ++k)
          sum += (p.transpose_a ? a[k * p.m + i] : a[i * p.k + k]) *
                 (p.transpose_b ? b[j * p.k + k] : b[k * p.n + j]);
        c[i * p.n + j] = sum;
      }
    }
  });
}

Product forward_product(const Tensor& x, const Tensor& weight, const Tensor& y, bool has_bias) {
  return {.m = x.rows(),
          .n = weight.rows(),
          .k = x.channels(),
          .transpose_b = true,
          .input = x.dtype(),
          .output = y.dtype(),
          .bias = has_bias};
}

void forward_f64(const Product& product, const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const Tensor& y) {
  product_f64(product, x.data<double>(), weight.data<double>(), y.data<double>());
  if (!bias.defined()) return;
  for (std::int64_t i = 0; i < y.elements(); ++i) y.data<double>()[i] += bias.data<double>()[i % product.n];
}

/// Types other than fp64.
void thin_forward(const Tensor& x, const Tensor& weight, const float* bias, const Tensor& y) {
  const ThinProduct product{.rows = x.rows(), .in = x.channels(), .out = weight.rows()};
  dispatch_float(x.dtype(), [&]<class T>(Type<T>) {
    if constexpr (!std::is_same_v<T, double>) {
      if (y.dtype() == DType::bf16) {
        thin_product(product, x.data<T>(), weight.data<T>(), bias, y.data<bf16>());
      } else {
        thin_product(product, x.data<T>(), weight.data<T>(), bias, y.data<float>());
      }
    }
  });
}

class CpuLinear final : public LinearKernels {
 public:
  explicit CpuLinear(Memory& memory) : memory_(memory) {}

  void linear(const LinearForward& a) const override {
    const Product product = forward_product(a.x, a.weight, a.y, a.bias.defined());
    if (a.x.dtype() == DType::f64) {
      forward_f64(product, a.x, a.weight, a.bias, a.y);
      return;
    }
    const float* bias = a.bias.defined() ? a.bias.data<float>() : nullptr;
    if (product.m <= kThinRows) {
      thin_forward(a.x, a.weight, bias, a.y);
      return;
    }
    products_.run(product, a.x.raw(), a.weight.raw(), a.y.raw(), bias);
  }

  void linear(const LinearBackward& a) const override {
    if (a.dbias) {
      dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
        sum_rows<T>(a.dy, a.dbias, [&](std::int64_t begin, std::int64_t end, Lane<T>* sum) {
          add_rows(a.dy.data<T>() + begin * a.dy.channels(), sum, end - begin, a.dy.channels());
        });
      });
    }
    input_and_weight_gradients(a.dy, a.x, a.weight, a.dx, a.dweight);
  }

  void block_linear(const BlockLinearForward& a) const override { cpu::block_linear(a); }
  void block_linear(const BlockLinearBackward& a) const override { cpu::block_linear(a, memory_); }
  void gate_products(const GateProductsForward& a) const override { cpu::gate_products(a); }
  void gate_products(const GateProductsBackward& a) const override { cpu::gate_products(a, memory_); }
  void cap_gates(const CapGatesForward& a) const override { cpu::cap_gates(a); }
  void cap_gates(const CapGatesBackward& a) const override { cpu::cap_gates(a, memory_); }

  void linear_gelu(const LinearGeluForward& a) const override {
    if (a.x.dtype() == DType::f64) {
      forward_f64(forward_product(a.x, a.weight, a.z, true), a.x, a.weight, a.bias, a.z);
      gelu_values(a.z.data<double>(), a.y.data<double>(), a.y.elements());
      return;
    }
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      if constexpr (!std::is_same_v<T, double>)
        fused_forward<T>(a.x, a.weight, a.bias, a.z, [&](T* z, std::int64_t offset, std::int64_t count) {
          gelu_values(z, a.y.data<T>() + offset, count);
        });
    });
  }

  void linear_gelu(const LinearGeluBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      sum_rows<T>(a.z, a.dbias, [&](std::int64_t begin, std::int64_t end, Lane<T>* sum) {
        const std::int64_t offset = begin * a.z.channels();
        gelu_gradient_rows(a.dy.data<T>() + offset, a.z.data<T>() + offset, sum, end - begin, a.z.channels());
      });
    });
    input_and_weight_gradients(a.z, a.x, a.weight, a.dx, a.dweight);
  }

  void linear_squared_relu(const LinearSquaredReluForward& a) const override {
    if (a.x.dtype() == DType::f64) {
      forward_f64(forward_product(a.x, a.weight, a.y, false), a.x, a.weight, {}, a.y);
      squared_relu_values(a.y.data<double>(), a.y.elements());
      return;
    }
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) {
      if constexpr (!std::is_same_v<T, double>)
        fused_forward<T>(a.x, a.weight, {}, a.y,
                         [](T* y, std::int64_t, std::int64_t count) { squared_relu_values(y, count); });
    });
  }

  void linear_squared_relu(const LinearSquaredReluBackward& a) const override {
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      parallel_rows(a.y.elements(), 3 * sizeof(T), [&](std::int64_t begin, std::int64_t end) {
        squared_relu_gradient_values(a.dy.data<T>() + begin, a.y.data<T>() + begin, a.dz.data<T>() + begin,
                                     end - begin);
      });
    });
    input_and_weight_gradients(a.dz, a.x, a.weight, a.dx, a.dweight);
  }

 private:
  /// Blocks of rows go through the product and, while still in cache, through the activation: activate(z,
  /// offset of z in the whole, count).
  template <class T, class Activate>
  void fused_forward(const Tensor& x, const Tensor& weight, const Tensor& bias_of, const Tensor& z_of,
                     const Activate& activate) const {
    const std::int64_t rows = x.rows(), in = x.channels(), out = weight.rows();
    Product product = forward_product(x, weight, z_of, bias_of.defined());
    const float* bias = bias_of ? bias_of.data<float>() : nullptr;
    if (rows <= kThinRows) {  // packing reads and writes the weights once more
      thin_forward(x, weight, bias, z_of);
      activate(z_of.data<T>(), 0, rows * out);
      return;
    }
    product.m = std::min(rows, kFusedRows);
    const auto packed = products_.pack(product, weight.raw());
    parallel_chunks({.items = rows, .size = kFusedRows},
                    [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                      Product part = product;
                      part.m = end - begin;
                      T* z = z_of.data<T>() + begin * out;
                      if (part.m == product.m) {
                        products_.run(part, x.data<T>() + begin * in, *packed, z, bias);
                      } else {
                        products_.run(part, x.data<T>() + begin * in, weight.raw(), z, bias);
                      }
                      activate(z, begin * out, part.m * out);
                    });
  }

  /// body(begin, end, sum) adds its rows into sum [channels], in an order that the shape alone decides.
  template <class T, class Body>
  void sum_rows(const Tensor& rows_of, const Target& target, const Body& body) const {
    PartialSums<Lane<T>> sums(memory_, rows_of.rows(), rows_of.channels());
    sums.over_rows(body);
    sums.total(0, rows_of.channels(), target);
  }

  void input_and_weight_gradients(const Tensor& dy, const Tensor& x, const Tensor& weight, const Target& dx,
                                  const Target& dweight) const {
    const std::int64_t rows = dy.rows(), out = dy.channels(), in = x.channels();
    if (dx) {
      run({.m = rows,
           .n = in,
           .k = out,
           .accumulate = dx.accumulate,
           .input = dy.dtype(),
           .output = dx.tensor.dtype()},
          dy, weight, dx.tensor);
    }
    if (dweight) {
      run({.m = out,
           .n = in,
           .k = rows,
           .transpose_a = true,
           .accumulate = dweight.accumulate,
           .input = dy.dtype(),
           .output = dweight.tensor.dtype()},
          dy, x, dweight.tensor);
    }
  }

  void run(const Product& product, const Tensor& a, const Tensor& b, const Tensor& c) const {
    if (product.input == DType::f64) {
      product_f64(product, a.data<double>(), b.data<double>(), c.data<double>());
    } else {
      products_.run(product, a.raw(), b.raw(), c.raw());
    }
  }

  Memory& memory_;
  MatrixProducts products_;
};

std::unique_ptr<LinearKernels> make_linear(Memory& memory) { return std::make_unique<CpuLinear>(memory); }

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_linear);
std::unique_ptr<LinearKernels> make_linear(Memory& memory) {
  return HWY_DYNAMIC_DISPATCH(make_linear)(memory);
}

}  // namespace bireme::cpu
#endif
