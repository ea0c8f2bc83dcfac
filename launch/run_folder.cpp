#include "launch/run_folder.h"

#include "core/base/error.h"
#include "distributed/agreement.h"

namespace bireme {

namespace {

constexpr const char* kConfigurationFile = "config.toml";

void check_resume(const std::filesystem::path& path, const Configuration& configuration) {
  require_same_mathematics(run_configuration(path, {}), configuration, path.string());
}

}  // namespace

RunFolder::RunFolder(const std::filesystem::path& path, const Configuration& configuration, bool resume,
                     Communicator& world)
    : path_(path) {
  run_on_first(world, [&]() -> std::string {
    const bool is_used = holds_run(path);
    if (is_used && !resume) {
      throw Error(ErrorKind::usage, "the folder already holds a run", path.string(),
                  "go on with --resume, or choose another folder with --run");
    }
    std::error_code failed;
    std::filesystem::create_directories(path / "checkpoints", failed);
    if (failed)
      throw Error(ErrorKind::checkpoint, "cannot make the run folder: " + failed.message(), path.string(),
                  "choose another --run");
    lock_.emplace(path);
    if (is_used) check_resume(path, configuration);
    StagedFolder::sweep(path / "checkpoints");
    write_file_atomically(path / kConfigurationFile, to_toml(configuration));
    return {};
  });
}

bool RunFolder::holds_run(const std::filesystem::path& path) {
  return std::filesystem::exists(path / kConfigurationFile);
}

Configuration run_configuration(const std::filesystem::path& run, std::span<const Override> overrides) {
  if (!RunFolder::holds_run(run))
    throw Error(ErrorKind::usage, "there is no run in this folder", run.string(), "check --run");
  return load_configuration(run / kConfigurationFile, overrides);
}

}  // namespace bireme
