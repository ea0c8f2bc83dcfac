#include "core/cuda/cuda_kernels.h"
#include "core/ops/dispatch.h"
#include "core/ops/norm/batch_norm_cuda.cuh"
#include "core/ops/norm/layer_norm_backward_cuda.cuh"
#include "core/ops/norm/norm_kernels.h"
#include "core/ops/norm/unit_norm_cuda.cuh"

namespace bireme::cuda {

namespace {

class CudaNorm final : public NormKernels {
 public:
  explicit CudaNorm(DeviceMemory& memory) : memory_(memory) {}

  void layer_norm(const LayerNormForward& a) const override {
    dispatch_floats(a.x.dtype(), a.y.dtype(), [&]<class X, class Y>(Type<X>, Type<Y>) {
      run_norm<X, Y>(memory_, {.x = a.x.data<X>(),
                               .gain = a.gain.data<Lane<X>>(),
                               .bias = a.bias.data<Lane<X>>(),
                               .y = a.y.data<Y>(),
                               .mean = a.mean.data<Lane<X>>(),
                               .reciprocal = a.reciprocal.data<Lane<X>>(),
                               .rows = a.x.rows(),
                               .width = a.x.channels(),
                               .epsilon = a.epsilon});
    });
  }
  void residual_layer_norm(const ResidualNormForward& a) const override {
    dispatch_floats(a.x.dtype(), a.y.dtype(), [&]<class X, class Y>(Type<X>, Type<Y>) {
      run_norm<X, Y>(memory_, {.x = a.x.data<X>(),
                               .branch = a.branch.data<Y>(),
                               .scale = data_or_null<Lane<X>>(a.scale),
                               .x_sum = a.x_sum.data<X>(),
                               .gain = a.gain.data<Lane<X>>(),
                               .bias = a.bias.data<Lane<X>>(),
                               .y = a.y.data<Y>(),
                               .mean = a.mean.data<Lane<X>>(),
                               .reciprocal = a.reciprocal.data<Lane<X>>(),
                               .rows = a.x.rows(),
                               .width = a.x.channels(),
                               .epsilon = a.epsilon});
    });
  }
  void layer_norm(const LayerNormBackward& a) const override {
    dispatch_floats(a.x.dtype(), a.dy.dtype(), [&]<class X, class Y>(Type<X>, Type<Y>) {
      NormGradient<X, Y> g{.dy = a.dy.data<Y>(),
                           .x = a.x.data<X>(),
                           .gain = a.gain.data<Lane<X>>(),
                           .mean = a.mean.data<Lane<X>>(),
                           .reciprocal = a.reciprocal.data<Lane<X>>(),
                           .direct = data_or_null<X>(a.direct),
                           .scale = data_or_null<Lane<X>>(a.scale),
                           .rows = a.x.rows(),
                           .width = a.x.channels()};
      g.set(a.dx, a.dbranch);
      run_norm_backward(memory_, g, a.dgain, a.dbias);
    });
  }
  void rms_norm(const RmsNormForward& a) const override {
    dispatch_floats(a.x.dtype(), a.y.dtype(), [&]<class X, class Y>(Type<X>, Type<Y>) {
      run_norm<X, Y>(memory_, {.x = a.x.data<X>(),
                               .branch = data_or_null<Y>(a.branch),
                               .x_sum = data_or_null<X>(a.x_sum),
                               .gain = a.gain.data<Lane<X>>(),
                               .y = a.y.data<Y>(),
                               .reciprocal = a.reciprocal.data<Lane<X>>(),
                               .rows = a.x.rows(),
                               .width = a.x.channels(),
                               .epsilon = a.epsilon});
    });
  }
  void rms_norm(const RmsNormBackward& a) const override {
    dispatch_floats(a.x.dtype(), a.dy.dtype(), [&]<class X, class Y>(Type<X>, Type<Y>) {
      NormGradient<X, Y> g{.dy = a.dy.data<Y>(),
                           .x = a.x.data<X>(),
                           .gain = a.gain.data<Lane<X>>(),
                           .reciprocal = a.reciprocal.data<Lane<X>>(),
                           .direct = data_or_null<X>(a.direct),
                           .rows = a.x.rows(),
                           .width = a.x.channels()};
      g.set(a.dx, a.dbranch);
      run_norm_backward(memory_, g, a.dgain, {});
    });
  }
  void group_norm(const GroupNormForward& a) const override {
    dispatch_floats(a.x.dtype(), a.y.dtype(), [&]<class X, class Y>(Type<X>, Type<Y>) {
      const std::int64_t groups = a.mean.channels();
      run_norm<X, Y>(memory_, {.x = a.x.data<X>(),
                               .gain = a.gain.data<Lane<X>>(),
                               .y = a.y.data<Y>(),
                               .mean = a.mean.data<Lane<X>>(),
                               .reciprocal = a.reciprocal.data<Lane<X>>(),
                               .rows = a.x.rows() * groups,
                               .width = a.x.channels() / groups,
                               .groups = groups,
                               .offset = a.offset,
                               .epsilon = a.epsilon});
    });
  }
  void group_norm(const GroupNormBackward& a) const override {
    dispatch_floats(a.x.dtype(), a.dy.dtype(), [&]<class X, class Y>(Type<X>, Type<Y>) {
      const std::int64_t groups = a.mean.channels();
      NormGradient<X, Y> g{.dy = a.dy.data<Y>(),
                           .x = a.x.data<X>(),
                           .gain = a.gain.data<Lane<X>>(),
                           .mean = a.mean.data<Lane<X>>(),
                           .reciprocal = a.reciprocal.data<Lane<X>>(),
                           .rows = a.x.rows() * groups,
                           .width = a.x.channels() / groups,
                           .groups = groups,
                           .offset = a.offset};
      g.set(a.dx, {});
      run_norm_backward(memory_, g, a.dgain, {});
    });
  }
  void l2_normalize(const L2NormalizeForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { cuda::l2_normalize<T>(memory_, a); });
  }
  void l2_normalize(const L2NormalizeBackward& a) const override {
    dispatch_float(a.u.dtype(), [&]<class T>(Type<T>) { cuda::l2_normalize<T>(memory_, a); });
  }
  void weight_norm(const WeightNormForward& a) const override {
    dispatch_float(a.weight.dtype(), [&]<class T>(Type<T>) { cuda::weight_norm<T>(memory_, a); });
  }
  void weight_norm(const WeightNormBackward& a) const override {
    dispatch_float(a.dweight.dtype(), [&]<class T>(Type<T>) { cuda::weight_norm<T>(memory_, a); });
  }
  void batch_sums(const BatchSums& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { cuda::batch_sums<T>(memory_, a); });
  }
  void batch_squares(const BatchSquares& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { cuda::batch_squares<T>(memory_, a); });
  }
  void batch_norm(const BatchNormForward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { batch_norm_forward<T>(memory_, a); });
  }
  void batch_norm(const BatchNormTotals& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { batch_norm_totals<T>(memory_, a); });
  }
  void batch_norm(const BatchNormBackward& a) const override {
    dispatch_float(a.x.dtype(), [&]<class T>(Type<T>) { batch_norm_backward<T>(memory_, a); });
  }

 private:
  DeviceMemory& memory_;
};

}  // namespace

std::unique_ptr<NormKernels> make_norm(DeviceMemory& memory) { return std::make_unique<CudaNorm>(memory); }

}  // namespace bireme::cuda
