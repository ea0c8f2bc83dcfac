#pragma once

#include <filesystem>

namespace bireme {

/// The folder that a model is to be read from: of a run its newest checkpoint, otherwise the folder itself.
/// @throws Error (checkpoint) when nothing there is a model
std::filesystem::path resolve_model_folder(const std::filesystem::path& model);

}  // namespace bireme
