#pragma once

#include "core/autograd/parameter.h"
#include "core/data/batch.h"

namespace bireme {

/// A network that can be trained: its parameters, and what a forward pass over a batch costs.
class Model {
 public:
  virtual ~Model() = default;

  virtual ParameterSet& parameters() = 0;
  virtual const ParameterSet& parameters() const = 0;
  /// Floating-point operations of a forward pass over this batch, two per multiply-add, matrix products and
  /// attention only, summed over tensor ranks. A backward pass costs twice as much.
  virtual double flops(const ImageBatch& batch) const = 0;
};

}  // namespace bireme
