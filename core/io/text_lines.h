#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/io/gzip_file.h"

namespace bireme {

/// Of lines that cannot be used, reports count all and name this many.
inline constexpr std::size_t kShownBadLines = 10;

/// The lines of a text file, plain or gzip, with what an error message needs to name them. A byte-order mark
/// of UTF-8 at the front is left out. @throws Error (data) naming the file, also for a line beyond 1 GiB
class TextLines {
 public:
  explicit TextLines(const std::filesystem::path& path);

  /// Moves on to the next line. Returns false behind the last.
  bool next();
  /// Without its line feed.
  const std::string& line() const { return line_; }
  /// False for a last line that the file ends without a line feed.
  bool has_line_feed() const { return has_line_feed_; }

  std::int64_t number() const { return number_; }  ///< from 1 on
  std::int64_t offset() const { return offset_; }  ///< bytes of the unpacked file before the line
  /// `FILE:LINE`.
  std::string place() const;
  std::int64_t packed_offset() const { return file_.packed_offset(); }

 private:
  std::filesystem::path path_;
  GzipFile file_;
  std::vector<std::uint8_t> buffer_;
  std::size_t begin_ = 0, end_ = 0;  // of what is in the buffer
  std::string line_;
  bool has_line_feed_ = false;
  std::int64_t number_ = 0, offset_ = 0, next_offset_ = 0;
};

}  // namespace bireme
