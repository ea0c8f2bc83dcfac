#include "core/cpu/cpu_backend.h"

#include <cassert>

#include "core/cpu/cpu_kernels.h"
#include "core/cpu/features.h"
#include "core/ops/convolution/convolution_kernels.h"
#include "core/ops/embedding/embedding_kernels.h"
#include "core/ops/loss/loss_kernels.h"
#include "core/ops/norm/norm_kernels.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

namespace {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(std::shared_ptr<Memory> memory)
      : memory_(std::move(memory)),
        norm_(cpu::make_norm(*memory_)),
        pointwise_(cpu::make_pointwise(*memory_)),
        embedding_(cpu::make_embedding(*memory_)),
        convolution_(cpu::make_convolution(*memory_)),
        loss_(cpu::make_loss(*memory_)) {}

  Memory& memory() const override { return *memory_; }
  const NormKernels& norm() const override { return *norm_; }
  const PointwiseKernels& pointwise() const override { return *pointwise_; }
  const LinearKernels& linear() const override { return missing<LinearKernels>(); }
  const AttentionKernels& attention() const override { return missing<AttentionKernels>(); }
  const EmbeddingKernels& embedding() const override { return *embedding_; }
  const ConvolutionKernels& convolution() const override { return *convolution_; }
  const LossKernels& loss() const override { return *loss_; }
  const UpdateKernels& update() const override { return missing<UpdateKernels>(); }
  bool has_fast_bf16() const override { return cpu::has_bf16_instructions(); }

 private:
  template <class Kernels>
  const Kernels& missing() const {
    assert(false && "this family lands next");
    std::abort();
  }

  std::shared_ptr<Memory> memory_;  // first: the kernels take scratch space from it
  std::unique_ptr<NormKernels> norm_;
  std::unique_ptr<PointwiseKernels> pointwise_;
  std::unique_ptr<EmbeddingKernels> embedding_;
  std::unique_ptr<ConvolutionKernels> convolution_;
  std::unique_ptr<LossKernels> loss_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(std::shared_ptr<Memory> memory) {
  return std::make_unique<CpuBackend>(std::move(memory));
}

}  // namespace bireme
