#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "launch/metrics.h"
#include "launch/plot.h"

namespace bireme {

/// What one run left to draw.
struct RunCurves {
  std::string name;
  MetricHistory metrics;
  double prototypes = 0;  ///< of its configuration; 0 if that cannot be read
};

/// @param folder   a run folder (metrics.jsonl, and config.toml if there is one), or a metrics file
/// @throws Error   (data) when there are no metrics
RunCurves read_run(const std::filesystem::path& folder);

/// Loss, k-NN accuracy, entropies and KL, learning rate, gradient norm and speed over the steps, as far as
/// any run has them. Colours tell quantities apart in a picture of one run, and runs in a picture of several.
Figure curves_figure(const std::vector<RunCurves>& runs);

}  // namespace bireme
