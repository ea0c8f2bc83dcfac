#include "launch/model_folder.h"

#include "core/base/error.h"
#include "distributed/checkpoint_reader.h"

namespace bireme {

std::filesystem::path resolve_model_folder(const std::filesystem::path& model) {
  if (std::filesystem::exists(model / "checkpoints")) {
    if (const auto latest = find_latest_checkpoint(model / "checkpoints")) return latest->folder;
    throw Error(ErrorKind::checkpoint, "the run has no checkpoint yet", model.string(),
                "let it train to run.checkpoint_every");
  }
  if (std::filesystem::exists(model / "config.json")) return model;
  throw Error(ErrorKind::checkpoint, "this is no model: it holds neither config.json nor checkpoints",
              model.string(), "pass a checkpoint, a run folder, or a Hugging Face folder");
}

}  // namespace bireme
