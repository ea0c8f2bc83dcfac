#include "core/cuda/cuda_backend.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/cuda/cuda_kernels.h"
#include "core/cuda/runtime.h"
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

namespace bireme::cuda {

namespace {

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::shared_ptr<DeviceMemory> memory, bool graphs)
      : memory_(std::move(memory)),
        graphs_(graphs),
        linear_(make_linear(*memory_)),
        norm_(make_norm(*memory_)),
        attention_(make_attention(*memory_)),
        pointwise_(make_pointwise(*memory_)),
        embedding_(make_embedding(*memory_)),
        convolution_(make_convolution(*memory_)),
        loss_(make_loss(*memory_)),
        update_(make_update(*memory_)),
        mlstm_(make_mlstm(*memory_)),
        slstm_(make_slstm(*memory_)),
        wkv_(make_wkv(*memory_)),
        token_shift_(make_token_shift(*memory_)) {}

  Memory& memory() const override { return *memory_; }
  const LinearKernels& linear() const override { return *linear_; }
  const NormKernels& norm() const override { return *norm_; }
  const AttentionKernels& attention() const override { return *attention_; }
  const PointwiseKernels& pointwise() const override { return *pointwise_; }
  const EmbeddingKernels& embedding() const override { return *embedding_; }
  const ConvolutionKernels& convolution() const override { return *convolution_; }
  const LossKernels& loss() const override { return *loss_; }
  const UpdateKernels& update() const override { return *update_; }
  const MlstmKernels& mlstm() const override { return *mlstm_; }
  const SlstmKernels& slstm() const override { return *slstm_; }
  const WkvKernels& wkv() const override { return *wkv_; }
  const TokenShiftKernels& token_shift() const override { return *token_shift_; }
  bool has_fast_bf16() const override { return true; }  // every GPU since sm_80, the oldest that is built for
  void captured(std::string_view name, const std::function<void()>& work) const override {
    if (!graphs_) return work();
    memory_->graphs().run(name, work);
  }
  std::optional<CaptureStatistics> captures() const override {
    if (!graphs_) return std::nullopt;
    return memory_->graphs().statistics();
  }

 private:
  std::shared_ptr<DeviceMemory> memory_;  // first: the kernels take scratch space from it
  bool graphs_;
  std::unique_ptr<LinearKernels> linear_;
  std::unique_ptr<NormKernels> norm_;
  std::unique_ptr<AttentionKernels> attention_;
  std::unique_ptr<PointwiseKernels> pointwise_;
  std::unique_ptr<EmbeddingKernels> embedding_;
  std::unique_ptr<ConvolutionKernels> convolution_;
  std::unique_ptr<LossKernels> loss_;
  std::unique_ptr<UpdateKernels> update_;
  std::unique_ptr<MlstmKernels> mlstm_;
  std::unique_ptr<SlstmKernels> slstm_;
  std::unique_ptr<WkvKernels> wkv_;
  std::unique_ptr<TokenShiftKernels> token_shift_;
};

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  choose_device(options.local_rank, options.local_size);
  return std::make_unique<CudaBackend>(std::make_shared<DeviceMemory>(), options.graphs);
}

}  // namespace bireme::cuda
