#pragma once

#include <filesystem>
#include <string>

#include "core/optimizer/adamw.h"
#include "distributed/checkpoint.h"
#include "models/published/vision_transformer.h"
#include "objectives/dino.h"

namespace bireme {

/// Everything that a step changes, as a checkpoint holds it: the teacher as a published folder (it is the
/// model that is evaluated and exported), and beside it the student, both heads, moments, centre and
/// counters.
struct TrainingState {
  const Backend& backend;
  Communicator& world;
  const Mesh& mesh;
  DinoObjective& objective;
  AdamWOptimizer& optimizer;
  PublishedVisionTransformer published;  ///< of the teacher
  std::string configuration;             ///< the run's, as TOML
  std::string dataset;                   ///< fingerprint of the training data
};

/// The teacher's backbone alone, which opens in other programs. Collective.
std::filesystem::path save_teacher(const TrainingState& state, const std::filesystem::path& folder,
                                   std::int64_t step);
/// The whole state after `step` steps. Collective.
std::filesystem::path save_training_state(const TrainingState& state, const std::filesystem::path& folder,
                                          std::int64_t step);
/// Restores it, whatever the layout over ranks that wrote it. Returns the number of steps done. Collective.
/// @throws Error (checkpoint) for missing, extra or misshapen tensors, and for a state of another dataset
std::int64_t load_training_state(const TrainingState& state, const std::filesystem::path& checkpoint);

}  // namespace bireme
