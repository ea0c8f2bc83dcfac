#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/base/files.h"

namespace bireme {

/// A log that grows record by record. A record is on the file system as a whole or not at all, and one that
/// cannot be written (full disk, closed pipe) is dropped and counted: reporting never stops a run.
class AppendFile {
 public:
  explicit AppendFile(std::filesystem::path path);

  /// Appends one record with one write. @return false when it was lost; `problem` says why
  bool append(std::string_view record);
  std::int64_t lost() const { return lost_; }
  /// The reason of the last loss: "No space left on device".
  std::string problem() const;
  const std::filesystem::path& path() const { return path_; }

 private:
  bool lose(int error);

  std::filesystem::path path_;
  FileDescriptor file_;
  std::int64_t lost_ = 0;
  int error_ = 0;
};

}  // namespace bireme
