#pragma once

#include <functional>
#include <vector>

#include "core/autograd/parameter.h"
#include "core/ops/backend.h"

namespace bireme {

/// How gradients are kept from being too long.
enum class ClipType {
  global,     ///< one norm over all parameters
  parameter,  ///< each tensor by its own norm, as DINO does
};

struct ClipOptions {
  ClipType type = ClipType::global;
  double limit = 0;  ///< 0 or less: no clipping
  double scale = 1;  ///< of the gradients, still to be applied: norms are those of scale · gradient
};

struct ClippedGradients {
  double norm = 0;            ///< of all gradients together, before clipping
  std::vector<double> norms;  ///< of each parameter, by index
  /// scale · min(1, limit / (norm + 1e-6)), to be applied by the optimiser; no pass of its own.
  std::vector<float> scales;
  bool finite = true;
};

/// Norms of all gradients in one pass, and the factors that clip them. Sums are in fp64.
/// @param sum  adds the squared norms of split parameters over the ranks that hold the other parts; empty:
/// nothing is split
ClippedGradients clip_gradients(const Backend& backend, const ParameterSet& parameters,
                                const ClipOptions& options,
                                const std::function<void(const Tensor&)>& sum = {});

}  // namespace bireme
