#include <limits>

#include "core/cuda/column_sums.cuh"
#include "core/cuda/cuda_kernels.h"
#include "core/cuda/elementwise.cuh"
#include "core/cuda/warp.cuh"
#include "core/ops/dispatch.h"
#include "core/ops/loss/dino_loss_cuda.cuh"
#include "core/ops/loss/loss_kernels.h"
#include "core/ops/loss/token_loss_cuda.cuh"
#include "core/ops/loss/token_rows_cuda.cuh"

namespace bireme::cuda {

namespace {

class CudaLoss final : public LossKernels {
 public:
  explicit CudaLoss(DeviceMemory& memory) : memory_(memory) {}

  void dino_maxima(const DinoMaxima& a) const override {
    dispatch_float(a.student.dtype(), [&]<class T>(Type<T>) { cuda::dino_maxima<T>(memory_, a); });
  }
  void dino_sums(const DinoSums& a) const override {
    dispatch_float(a.student.dtype(), [&]<class T>(Type<T>) { cuda::dino_sums<T>(memory_, a); });
  }
  void dino_finish(const DinoFinish& a) const override {
    dispatch_float(a.teacher.dtype(), [&]<class T>(Type<T>) { cuda::dino_finish<T>(memory_, a); });
  }
  void dino_backward(const DinoBackward& a) const override {
    dispatch_float(a.student.dtype(), [&]<class T>(Type<T>) { cuda::dino_backward<T>(memory_, a); });
  }
  void cross_entropy(const CrossEntropyForward& a) const override {
    dispatch_lane(a.logits.dtype(), [&]<class L>(Type<L>) { cuda::cross_entropy<L>(memory_, a); });
  }
  void cross_entropy(const CrossEntropyBackward& a) const override {
    dispatch_lane(a.logits.dtype(), [&]<class L>(Type<L>) { cuda::cross_entropy<L>(memory_, a); });
  }
  void token_statistics(const TokenStatistics& a) const override {
    dispatch_lane(a.logits.dtype(), [&]<class L>(Type<L>) { cuda::token_statistics<L>(memory_, a); });
  }
  void token_rebase(const TokenRebase& a) const override { cuda::token_rebase(memory_, a); }
  void token_finish(const TokenFinish& a) const override {
    dispatch_lane(a.log_probability.dtype(), [&]<class P>(Type<P>) { cuda::token_finish<P>(memory_, a); });
  }
  void token_totals(const TokenTotals& a) const override {
    dispatch_lane(a.loss.dtype(), [&]<class L>(Type<L>) { cuda::token_totals<L>(memory_, a); });
  }
  void token_gradient(const TokenGradient& a) const override {
    dispatch_floats(a.logits.dtype(), a.dlogits.dtype(), [&]<class L, class G>(Type<L>, Type<G>) {
      if constexpr (!std::is_same_v<L, bf16>) cuda::token_gradient<L, G>(memory_, a);
    });
  }
  void soft_cap(const SoftCap& a) const override {
    dispatch_lane(a.logits.dtype(), [&]<class L>(Type<L>) {
      elementwise<1>(memory_.stream(), a.logits.elements(), false,
                     SoftCapOp<L>{a.logits.data<L>(), static_cast<L>(a.cap)});
    });
  }

 private:
  DeviceMemory& memory_;
};

}  // namespace

std::unique_ptr<LossKernels> make_loss(DeviceMemory& memory) { return std::make_unique<CudaLoss>(memory); }

}  // namespace bireme::cuda
