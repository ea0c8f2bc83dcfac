#pragma once

#include <memory>

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
};

}  // namespace bireme
