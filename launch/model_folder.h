#pragma once

#include <filesystem>

#include "distributed/communicator.h"

namespace bireme {

/// What a folder on the command line may be.
enum class FolderKind {
  dataset,     ///< dataset.json and shards
  checkpoint,  ///< manifest.json, and a published model with the training state beside it
  run,         ///< checkpoints/step-NNNNNNNN
  published,   ///< config.json and model.safetensors, as other programs write them
  unknown
};
FolderKind folder_kind(const std::filesystem::path& path);

/// The folder to open for `--model M`: M itself if it is a checkpoint or a Hugging Face folder, or the newest
/// whole checkpoint of the run M. Damaged newer ones are passed over with a warning in the log.
/// @throws Error (checkpoint) when there is no such folder, it holds no model (saying what it holds instead),
/// or no
///         checkpoint of the run is whole
std::filesystem::path resolve_model_folder(const std::filesystem::path& path);
/// The same on all ranks; rank 0 reads and warns. Collective.
std::filesystem::path resolve_model_folder(const std::filesystem::path& path, Communicator& world);

/// The same for one that looks at the kind of the model alone: weights are not read, and nothing is logged.
std::filesystem::path find_model_folder(const std::filesystem::path& path);

}  // namespace bireme
