#pragma once

#include <span>
#include <vector>

#include "core/autograd/parameter.h"
#include "core/ops/backend.h"

namespace bireme {

/// AdamW with decoupled weight decay (Loshchilov and Hutter 2019) over the flat buffers of a parameter set:
/// one pass over memory for all parameters. Steps are counted for each parameter, so one that was frozen
/// starts with the bias correction of its first step. Holds the moments of the slice [begin, end) of the flat
/// buffers: all of it, or a rank's share when optimiser state is sharded (ZeRO-1, Rajbhandari et al. 2020).
class AdamWOptimizer {
 public:
  struct Options {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  };
  AdamWOptimizer(const Backend& backend, ParameterSet& parameters, const Options& options, std::int64_t begin,
                 std::int64_t end);

  /// Moves the parameters that are trainable. `scales` multiplies the gradient of each parameter (clipping);
  /// empty: 1.
  void step(double learning_rate, double weight_decay, std::span<const float> scales);

  std::int64_t begin() const { return begin_; }
  std::int64_t end() const { return end_; }
  const Tensor& first_moment() const { return first_; }    ///< [end - begin] fp32
  const Tensor& second_moment() const { return second_; }  ///< [end - begin] fp32
  std::vector<std::int64_t>& steps() { return steps_; }    ///< by parameter index

 private:
  const Backend& backend_;
  ParameterSet& parameters_;
  Options options_;
  std::int64_t begin_, end_;
  Tensor first_, second_;
  std::vector<std::int64_t> steps_;
};

}  // namespace bireme
