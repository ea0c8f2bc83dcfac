#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "core/tensor/memory.h"

namespace bireme {

class LinearKernels;
class NormKernels;
class AttentionKernels;
class PointwiseKernels;
class EmbeddingKernels;
class ConvolutionKernels;
class LossKernels;
class MlstmKernels;
class SlstmKernels;
class UpdateKernels;
class WkvKernels;
class TokenShiftKernels;

/// How stretches of work that a device captures went.
struct CaptureStatistics {
  std::int64_t launches = 0;        ///< of what was captured
  std::int64_t instantiations = 0;  ///< of which first, or because the kernels were others than before
};

/// A device's kernels, one small interface per family of ops. A kernel missing on a device is a compile
/// error.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual Memory& memory() const = 0;
  virtual const LinearKernels& linear() const = 0;
  virtual const NormKernels& norm() const = 0;
  virtual const AttentionKernels& attention() const = 0;
  virtual const PointwiseKernels& pointwise() const = 0;
  virtual const EmbeddingKernels& embedding() const = 0;
  virtual const ConvolutionKernels& convolution() const = 0;
  virtual const LossKernels& loss() const = 0;
  virtual const MlstmKernels& mlstm() const = 0;
  virtual const SlstmKernels& slstm() const = 0;
  virtual const UpdateKernels& update() const = 0;
  virtual const WkvKernels& wkv() const = 0;
  virtual const TokenShiftKernels& token_shift() const = 0;

  /// Whether matrix products in bf16 run on this device's own instructions. Where not, asking for bf16 is an
  /// error.
  virtual bool has_fast_bf16() const = 0;

  /// Runs `work`, a stretch of a training step that has the same name in each step. A device may capture
  /// what it queues, and start it all at once when the host waits or the stretch ends. Not nested.
  virtual void captured(std::string_view /*name*/, const std::function<void()>& work) const { work(); }
  /// Nothing where captured() does not capture.
  virtual std::optional<CaptureStatistics> captures() const { return std::nullopt; }
};

}  // namespace bireme
