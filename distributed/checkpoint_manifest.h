#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "core/base/files.h"

namespace bireme {

/// What a committed checkpoint folder must hold, to the bit. Written last, so a folder with one is whole.
struct CheckpointManifest {
  struct File {
    FileRecord record;
    std::map<std::string, std::string>
        tensors;  ///< checksum of each tensor's bytes, to name the one that is damaged
  };

  std::int64_t step = 0;
  std::map<std::string, File> files;

  static constexpr const char* kFileName = "manifest.json";

  /// JSON that carries a checksum of itself.
  std::string to_text() const;
  /// @throws Error (checkpoint) when the text is damaged, of a newer format, or names files outside the
  /// folder
  static CheckpointManifest parse(const std::string& text, const std::filesystem::path& place);
  static CheckpointManifest read(const std::filesystem::path& folder);

  /// Are all files there, and as long as they should be? Costs no reading. @throws Error (checkpoint) naming
  /// the first
  void check_sizes(const std::filesystem::path& folder) const;
  /// Reads one file. @throws Error (checkpoint) with both checksums, and the tensor where only one is damaged
  void check_content(const std::filesystem::path& folder, const std::string& name) const;
};

}  // namespace bireme
