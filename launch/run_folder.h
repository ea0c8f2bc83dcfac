#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "core/base/files.h"
#include "distributed/communicator.h"
#include "launch/configuration.h"

namespace bireme {

/// The folder of a training run, held by one job at a time.
///     config.toml  log.txt  metrics.jsonl  tensorboard/  checkpoints/step-NNNNNNNN/ untrained/step-00000000/
///     evaluation/  of alignment: the reference's answers, and what each evaluation found of single prompts
class RunFolder {
 public:
  /// Collective; rank 0 makes, checks and locks the folder.
  /// @throws Error (usage) when it holds a run and `resume` is false, or is in use; on resume when the
  /// configuration differs
  ///         in what changes the mathematics
  RunFolder(const std::filesystem::path& path, const Configuration& configuration, bool resume,
            Communicator& world);

  static bool holds_run(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path untrained() const { return path_ / "untrained"; }
  std::filesystem::path evaluation() const { return path_ / "evaluation"; }

 private:
  std::filesystem::path path_;
  std::optional<FileLock> lock_;  // on rank 0
};

/// The configuration that a run was started with. @throws Error (usage) when there is no such run
Configuration run_configuration(const std::filesystem::path& run, std::span<const Override> overrides);

}  // namespace bireme
