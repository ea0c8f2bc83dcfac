#pragma once

#include <memory>

#include "core/cuda/device_memory.h"
#include "core/ops/backend.h"

namespace bireme::cuda {

// The kernels of each family. They run on the stream of `memory` and take scratch space from it; it must
// outlive them.
std::unique_ptr<LinearKernels> make_linear(DeviceMemory& memory);
std::unique_ptr<NormKernels> make_norm(DeviceMemory& memory);
std::unique_ptr<AttentionKernels> make_attention(DeviceMemory& memory);
std::unique_ptr<PointwiseKernels> make_pointwise(DeviceMemory& memory);
std::unique_ptr<EmbeddingKernels> make_embedding(DeviceMemory& memory);
std::unique_ptr<ConvolutionKernels> make_convolution(DeviceMemory& memory);
std::unique_ptr<LossKernels> make_loss(DeviceMemory& memory);
std::unique_ptr<MlstmKernels> make_mlstm(DeviceMemory& memory);
std::unique_ptr<SlstmKernels> make_slstm(DeviceMemory& memory);
std::unique_ptr<UpdateKernels> make_update(DeviceMemory& memory);
std::unique_ptr<WkvKernels> make_wkv(DeviceMemory& memory);
std::unique_ptr<TokenShiftKernels> make_token_shift(DeviceMemory& memory);

}  // namespace bireme::cuda
