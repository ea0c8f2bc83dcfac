#pragma once

#include <functional>

#include "core/optimizer/adamw.h"
#include "distributed/mesh.h"
#include "models/language_model.h"
#include "tests/support/golden.h"

namespace bireme::test {

/// A reference's training, to be followed by a rank with its share of the batch and of the model.
struct GoldenTraining {
  const Backend& backend;
  LanguageModel& model;
  const Mesh& mesh;
  AdamWOptimizer::Options adamw;
  double weight_decay = 0.1, clip = 1, l2_wrap = 0;
  bool recompute = false;
  double loss_absolute = 1e-5, loss_relative = 0;
  double norm_relative = 1e-4;
  std::vector<double> rates = {};  ///< learning rate of each step; empty: inputs/lr
  std::function<void()> before_update = {};
};

/// Runs a step for each of inputs/tokens [steps, B, T + 1] (every token but the first is a target) and holds
/// its loss and gradient norm against steps/N/loss and grad_norm. Collective.
void follow(const Golden& golden, const GoldenTraining& training);

}  // namespace bireme::test
