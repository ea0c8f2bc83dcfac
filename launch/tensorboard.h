#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "launch/append_file.h"

namespace bireme {

/// One named number of one step.
struct Metric {
  std::string name;
  double value;
};

/// Writes scalars as a TensorBoard event file. A file is a sequence of records
///     u64 length · u32 masked CRC-32C of the length · bytes · u32 masked CRC-32C of the bytes        (little
///     endian)
/// whose bytes are Event messages: {1: double wall_time, 2: int64 step, 3: file_version | 5: Summary | 7:
/// SessionLog}. Each start of a program writes a file of its own.
class TensorboardWriter {
 public:
  /// @param resume_step  above 0: what earlier files hold from this step on is purged by the viewer, so that
  /// a curve goes
  ///                     on without a zigzag
  TensorboardWriter(const std::filesystem::path& folder, std::int64_t resume_step);

  void write(std::int64_t step, std::span<const Metric> metrics);
  const AppendFile& file() const { return file_; }

 private:
  AppendFile file_;
};

/// CRC-32C (Castagnoli), as in RFC 3720: "123456789" gives 0xe3069283.
std::uint32_t crc32c(std::string_view bytes);

}  // namespace bireme
