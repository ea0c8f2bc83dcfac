#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/io/safetensors.h"
#include "distributed/checkpoint.h"
#include "distributed/checkpoint_manifest.h"
#include "distributed/communicator.h"

namespace bireme {

enum class Verify {
  sizes,     ///< the manifest, and that every file is there and as long as it says
  checksums  ///< also reads every file
};

struct LoadOptions {
  bool allow_missing = false;     ///< leave tensors alone that the file does not have
  bool allow_extra = false;       ///< ignore tensors of the file that were not asked for
  bool allow_non_finite = false;  ///< accept NaN and infinity
};

/// A committed checkpoint, opened for reading by one rank.
class CheckpointReader {
 public:
  /// @throws Error (checkpoint) naming the file that is missing or damaged, and its damaged tensors
  static CheckpointReader open(const std::filesystem::path& folder, Verify verify = Verify::checksums);
  /// The same on all ranks of a job, each reading a share of the files. Collective: all return, or all throw.
  static CheckpointReader open(const std::filesystem::path& folder, Communicator& world);

  std::int64_t step() const { return manifest_.step; }
  const std::filesystem::path& folder() const { return folder_; }
  const CheckpointManifest& manifest() const { return manifest_; }
  bool has(const std::string& file) const { return manifest_.files.contains(file); }

  /// The content of a text file, checked against the manifest. @throws Error (checkpoint)
  std::string text(const std::string& file) const;
  /// A file of tensors. @throws Error (checkpoint) when the checkpoint has none of that name
  SafetensorsFile tensors(const std::string& file) const;
  /// Fills every `local` from the file: the slice of `partition`, converted where floating-point types
  /// differ.
  /// @throws Error (checkpoint) with the whole difference when names or shapes disagree, (not_finite) for NaN
  /// or infinity
  void load(const CheckpointFile& file, const LoadOptions& options = {}) const;

 private:
  CheckpointReader(std::filesystem::path folder, CheckpointManifest manifest)
      : folder_(std::move(folder)), manifest_(std::move(manifest)) {}

  std::filesystem::path folder_;
  CheckpointManifest manifest_;
};

struct LatestCheckpoint {
  std::filesystem::path folder;
  std::int64_t step = 0;
  std::vector<std::string> warnings;  ///< newer checkpoints that are damaged, each with what is wrong
};

/// The newest checkpoint of FOLDER/step-* whose every file holds what its manifest says, or with
/// Verify::sizes is as long as it says; nothing when there is none at all.
/// @throws Error (checkpoint) when there are some, and all are damaged
std::optional<LatestCheckpoint> find_latest_checkpoint(const std::filesystem::path& folder,
                                                       Verify verify = Verify::checksums);
/// The same on all ranks; rank 0 reads. Collective.
std::optional<LatestCheckpoint> find_latest_checkpoint(const std::filesystem::path& folder,
                                                       Communicator& world);

/// Deletes the oldest whole checkpoints beyond `keep` (at least 1), each by a rename first, so that none is
/// ever seen in half; damaged ones are left for their owner to judge. To be called by one rank, after a save.
/// Returns what was deleted.
std::vector<std::filesystem::path> prune_checkpoints(const std::filesystem::path& folder, int keep);

}  // namespace bireme
