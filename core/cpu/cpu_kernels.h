#pragma once

#include <memory>

#include "core/ops/backend.h"

namespace bireme::cpu {

// The kernels of each family for the widest instruction set of this CPU. `memory` is where they take scratch
// space from; it must outlive them.
std::unique_ptr<LinearKernels> make_linear(Memory& memory);
std::unique_ptr<NormKernels> make_norm(Memory& memory);
std::unique_ptr<AttentionKernels> make_attention(Memory& memory);
std::unique_ptr<PointwiseKernels> make_pointwise(Memory& memory);
std::unique_ptr<EmbeddingKernels> make_embedding(Memory& memory);
std::unique_ptr<ConvolutionKernels> make_convolution(Memory& memory);
std::unique_ptr<LossKernels> make_loss(Memory& memory);
std::unique_ptr<MlstmKernels> make_mlstm(Memory& memory);
std::unique_ptr<SlstmKernels> make_slstm(Memory& memory);
std::unique_ptr<UpdateKernels> make_update(Memory& memory);
std::unique_ptr<WkvKernels> make_wkv(Memory& memory);
std::unique_ptr<TokenShiftKernels> make_token_shift(Memory& memory);

}  // namespace bireme::cpu
