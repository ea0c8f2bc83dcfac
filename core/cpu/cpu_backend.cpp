#include "core/cpu/cpu_backend.h"

#include "core/cpu/cpu_kernels.h"
#include "core/cpu/features.h"
#include "core/ops/attention/attention_kernels.h"
#include "core/ops/convolution/convolution_kernels.h"
#include "core/ops/embedding/embedding_kernels.h"
#include "core/ops/linear/linear_kernels.h"
#include "core/ops/loss/loss_kernels.h"
#include "core/ops/mlstm/mlstm_kernels.h"
#include "core/ops/norm/norm_kernels.h"
#include "core/ops/pointwise/pointwise_kernels.h"
#include "core/ops/slstm/slstm_kernels.h"
#include "core/ops/token_shift/token_shift_kernels.h"
#include "core/ops/update/update_kernels.h"
#include "core/ops/wkv/wkv_kernels.h"

namespace bireme {

namespace {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(std::shared_ptr<Memory> memory)
      : memory_(std::move(memory)),
        linear_(cpu::make_linear(*memory_)),
        norm_(cpu::make_norm(*memory_)),
        attention_(cpu::make_attention(*memory_)),
        pointwise_(cpu::make_pointwise(*memory_)),
        embedding_(cpu::make_embedding(*memory_)),
        convolution_(cpu::make_convolution(*memory_)),
        loss_(cpu::make_loss(*memory_)),
        update_(cpu::make_update(*memory_)),
        wkv_(cpu::make_wkv(*memory_)),
        token_shift_(cpu::make_token_shift(*memory_)),
        mlstm_(cpu::make_mlstm(*memory_)),
        slstm_(cpu::make_slstm(*memory_)) {}

  Memory& memory() const override { return *memory_; }
  const NormKernels& norm() const override { return *norm_; }
  const PointwiseKernels& pointwise() const override { return *pointwise_; }
  const LinearKernels& linear() const override { return *linear_; }
  const AttentionKernels& attention() const override { return *attention_; }
  const EmbeddingKernels& embedding() const override { return *embedding_; }
  const ConvolutionKernels& convolution() const override { return *convolution_; }
  const LossKernels& loss() const override { return *loss_; }
  const MlstmKernels& mlstm() const override { return *mlstm_; }
  const SlstmKernels& slstm() const override { return *slstm_; }
  const UpdateKernels& update() const override { return *update_; }
  const WkvKernels& wkv() const override { return *wkv_; }
  const TokenShiftKernels& token_shift() const override { return *token_shift_; }
  bool has_fast_bf16() const override { return cpu::has_bf16_instructions(); }

 private:
  std::shared_ptr<Memory> memory_;  // first: the kernels take scratch space from it
  std::unique_ptr<LinearKernels> linear_;
  std::unique_ptr<NormKernels> norm_;
  std::unique_ptr<AttentionKernels> attention_;
  std::unique_ptr<PointwiseKernels> pointwise_;
  std::unique_ptr<EmbeddingKernels> embedding_;
  std::unique_ptr<ConvolutionKernels> convolution_;
  std::unique_ptr<LossKernels> loss_;
  std::unique_ptr<UpdateKernels> update_;
  std::unique_ptr<WkvKernels> wkv_;
  std::unique_ptr<TokenShiftKernels> token_shift_;
  std::unique_ptr<MlstmKernels> mlstm_;
  std::unique_ptr<SlstmKernels> slstm_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(std::shared_ptr<Memory> memory) {
  return std::make_unique<CpuBackend>(std::move(memory));
}

}  // namespace bireme
