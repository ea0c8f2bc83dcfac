#include "launch/model_folder.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/data/manifest.h"
#include "distributed/agreement.h"
#include "distributed/checkpoint_reader.h"

namespace bireme {

namespace fs = std::filesystem;

namespace {

constexpr const char* kWanted =
    "give a checkpoint folder, a run folder, or a Hugging Face folder (config.json and model.safetensors)";

LatestCheckpoint latest_checkpoint(const fs::path& run, Verify verify) {
  std::optional<LatestCheckpoint> latest = find_latest_checkpoint(run / "checkpoints", verify);
  if (!latest)
    throw Error(ErrorKind::checkpoint, "the run has no checkpoint yet", run.string(),
                "wait for its first one (run.checkpoint_every), or name another run");
  return std::move(*latest);
}

LatestCheckpoint find_model(const fs::path& path, Verify verify) {
  if (!fs::exists(path))
    throw Error(ErrorKind::checkpoint, "there is no such folder", path.string(), kWanted);
  switch (folder_kind(path)) {
    case FolderKind::checkpoint:
    case FolderKind::published: return {.folder = path, .warnings = {}};
    case FolderKind::run: return latest_checkpoint(path, verify);
    case FolderKind::dataset:
      throw Error(ErrorKind::checkpoint, "this is a dataset, not a model", path.string(), kWanted);
    case FolderKind::unknown: break;
  }
  throw Error(ErrorKind::checkpoint,
              fs::is_directory(path) ? "the folder holds no model: neither config.json nor checkpoints"
                                     : "a model is a folder, and this is a file",
              path.string(), kWanted);
}

}  // namespace

FolderKind folder_kind(const fs::path& path) {
  std::error_code ignored;
  const auto has = [&](const char* name) { return fs::exists(path / name, ignored); };
  if (has(DatasetManifest::kFile)) return FolderKind::dataset;
  if (has(CheckpointManifest::kFileName)) return FolderKind::checkpoint;
  if (has("checkpoints")) return FolderKind::run;
  if (has("config.json")) return FolderKind::published;
  return FolderKind::unknown;
}

fs::path resolve_model_folder(const fs::path& path) {
  const LatestCheckpoint found = find_model(path, Verify::checksums);
  for (const std::string& warning : found.warnings) log_warning("{}", warning);
  return found.folder;
}

fs::path resolve_model_folder(const fs::path& path, Communicator& world) {
  return run_on_first(world, [&] { return resolve_model_folder(path).string(); });
}

fs::path find_model_folder(const fs::path& path) { return find_model(path, Verify::sizes).folder; }

}  // namespace bireme
