#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/files.h"
#include "core/tensor/types.h"

namespace bireme {

/// A file inside a tar archive.
struct ArchiveMember {
  std::string name;  ///< as stored, for messages and labels; never used as a path on this machine
  std::int64_t offset = 0, bytes = 0;
};

/// Reads an uncompressed tar (POSIX ustar and pax, GNU long names) without unpacking it. Only regular files
/// count: links and devices are passed over, so nothing in an archive can reach outside it. Of two members
/// with one name the later counts, as in tar itself. read() may be called from any number of threads.
class TarArchive {
 public:
  /// Walks the headers. @throws Error (data) for a file that is no tar, is compressed, torn, or has a damaged
  /// header
  explicit TarArchive(const std::filesystem::path& path);

  const std::vector<ArchiveMember>& members() const { return members_; }
  std::vector<std::uint8_t> read(const ArchiveMember& member) const;

 private:
  InputFile file_;
  std::vector<ArchiveMember> members_;
};

/// An array of bytes in the IDX format of MNIST: magic 0, 0, 8, rank, then the sizes as big-endian 32-bit
/// numbers, then the entries.
struct IdxArray {
  Shape shape;
  std::vector<std::uint8_t> bytes;
};

/// True when the file, or what it unpacks to, begins like an IDX array.
bool is_idx(const std::filesystem::path& path);
/// Reads an IDX file, plain or gzip. @throws Error (data) when its header does not fit its length
IdxArray read_idx(const std::filesystem::path& path);

}  // namespace bireme
