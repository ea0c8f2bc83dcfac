#pragma once

#include "core/autograd/parameter.h"

namespace bireme {

/// A network that can be trained.
class Model {
 public:
  virtual ~Model() = default;

  virtual ParameterSet& parameters() = 0;
  virtual const ParameterSet& parameters() const = 0;
};

}  // namespace bireme
