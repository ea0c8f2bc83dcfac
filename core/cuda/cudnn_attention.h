#pragma once

#include <compare>
#include <memory>

#include "core/base/bf16.h"
#include "core/cuda/device_memory.h"

namespace bireme::cuda {

/// Sequences of one length, in rows of packed q, k, v as attention_kernels.h has them: [sequences · length,
/// (queries + 2 · keys) · dimension].
struct PackedAttention {
  std::int64_t sequences = 0, length = 0;
  int queries = 1, keys = 1;  ///< heads; `keys` divides `queries`
  std::int64_t dimension = 1;
  bool is_causal = false;

  auto operator<=>(const PackedAttention&) const = default;
};

/// Attention in bf16 by cuDNN's fused kernels, sums and row statistics in fp32, the way back with the same
/// bits every time. A plan is made once for each shape, which takes a second or two. Statistics are for the
/// way back alone: cuDNN wants them as [sequences, queries, length], where Bireme's own kernel has [rows,
/// queries].
class CudnnAttention {
 public:
  /// Takes workspace from `memory`, and runs on its stream.
  explicit CudnnAttention(DeviceMemory& memory);
  ~CudnnAttention();
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;

  /// Whether cuDNN is there and has kernels of this shape for this GPU; where `trains`, for the way back too.
  bool supports(const PackedAttention& shape, bool trains);

  // Of shapes that are supported:
  /// @param log_sum  statistics for the way back, or null
  void forward(const PackedAttention& shape, const bf16* qkv, bf16* y, float* log_sum);
  struct Gradient {
    const bf16 *dy, *qkv, *y;
    const float* log_sum;
    bf16* dqkv;  ///< overwritten
  };
  void backward(const PackedAttention& shape, const Gradient& gradient);

 private:
  struct Plans;
  DeviceMemory& memory_;
  std::unique_ptr<Plans> plans_;  // null without cuDNN
};

}  // namespace bireme::cuda
