#pragma once

#include <functional>
#include <vector>

#include "core/autograd/parameter.h"
#include "distributed/mesh.h"

namespace bireme {

/// The variance of a policy gradient (1/K)·Σ a_i·v_i, v_i = ∇s(y_i), for several weightings a of the same
/// answers: tr Cov = (1/K)·Σ a_i²·‖v_i‖² - ‖(1/K)·Σ a_i·v_i‖². Off policy, weightings that leave out the
/// value function estimate another vector, so the distance of the means belongs to the ratio of the
/// variances.
struct GradientVariance {
  double trace = 0;  ///< tr Cov of the first weighting
  struct Against {
    double variance = 0;  ///< of another, in that of the first
    /// Standard error of that ratio over draws of the answers, the means taken as known.
    double error = 0;
    double distance = 0;  ///< ‖mean - mean of the first‖ / ‖mean of the first‖
  };
  std::vector<Against> others;
};

/// Measures it over all parameters. Gradients are overwritten: between steps only. Collective.
/// @param weightings  of this rank's answers, each as many as there are answers
/// @param backward    (i): one backward pass that leaves ∇s(y_i) in the gradients of the parameters
GradientVariance measure_gradient_variance(ParameterSet& parameters, const Mesh& mesh,
                                           const std::vector<std::vector<double>>& weightings,
                                           const std::function<void(std::size_t)>& backward);

}  // namespace bireme
