#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "core/base/error.h"
#include "core/base/owned.h"

struct gzFile_s;

namespace bireme {

struct GzipTraits {
  using Handle = gzFile_s*;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle file) noexcept;
};

/// A file read from front to back that zlib unpacks on the way when it is gzip, and passes through when it is
/// not. @throws Error (data) naming the file, from every method
class GzipFile {
 public:
  explicit GzipFile(const std::filesystem::path& path);

  /// As many bytes as there are, up to `count`.
  std::size_t read(std::uint8_t* into, std::size_t count);
  /// Bytes of the file, as it lies on the disk, that were taken so far.
  std::int64_t packed_offset() const;
  [[noreturn]] void fail(const std::string& what) const;

 private:
  [[noreturn]] void fail_unpacking() const;

  std::filesystem::path path_;
  Owned<GzipTraits> file_;
};

}  // namespace bireme
