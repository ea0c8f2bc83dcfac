#include "core/cuda/cudnn_attention.h"
#include "core/cuda/devices.h"

namespace bireme::cuda {

struct CudnnAttention::Plans {};

CudnnAttention::CudnnAttention(DeviceMemory& memory) : memory_(memory) {}
CudnnAttention::~CudnnAttention() = default;
bool CudnnAttention::supports(const PackedAttention&, bool) { return false; }
void CudnnAttention::forward(const PackedAttention&, const bf16*, bf16*, float*) {}
void CudnnAttention::backward(const PackedAttention&, const Gradient&) {}

CudnnReport find_cudnn() {
  return {
      .version = "",
      .explanation = "not built in: attention on GPUs takes an own kernel (docs/gpu.md says how to add it)"};
}

}  // namespace bireme::cuda
