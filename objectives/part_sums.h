#pragma once

#include <utility>
#include <vector>

#include "core/tensor/tensor.h"

namespace bireme {

/// Two numbers of each micro-batch, which stay on the device until the step is over: its loss, fp32, and
/// what goes with it, fp64.
class PartSums {
 public:
  void clear() { parts_.clear(); }
  void add(const Tensor& loss, const Tensor& companion) {
    parts_.push_back(loss);
    parts_.push_back(companion);
  }
  /// Of all micro-batches, behind a single wait.
  std::pair<double, double> sums() const {
    double loss = 0, companion = 0;
    const std::vector<Tensor> found = on_host(parts_);
    for (std::size_t i = 0; i < found.size(); i += 2) {
      loss += static_cast<double>(found[i].data<float>()[0]);
      companion += found[i + 1].data<double>()[0];
    }
    return {loss, companion};
  }

 private:
  std::vector<Tensor> parts_;
};

}  // namespace bireme
