#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/checksum.h"
#include "core/base/error.h"
#include "core/base/owned.h"

namespace bireme {

struct FileDescriptorTraits {
  using Handle = int;
  static Handle null() noexcept { return -1; }
  static void close(Handle descriptor) noexcept;
};
using FileDescriptor = Owned<FileDescriptorTraits>;

/// XXH3-128 of a file, read in pieces; see checksum.h. `kind` is that of the Error thrown when it cannot be
/// read.
std::string checksum_file(const std::filesystem::path& path, ErrorKind kind = ErrorKind::checkpoint);

/// The whole file. @throws Error (kind) when it cannot be read or is longer than `limit` bytes
std::string read_file(const std::filesystem::path& path, std::int64_t limit,
                      ErrorKind kind = ErrorKind::checkpoint);

/// Replaces the file as a whole: written beside, flushed to the disk, renamed. After a crash at any instant
/// the path holds the old text or the new one. @throws Error (checkpoint)
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

/// True for a name of one path component: what a manifest or index may call a file. A name with a slash, a
/// NUL, "." or ".." could lead out of its folder.
bool is_plain_file_name(std::string_view name);

/// A regular file, read at any offset by any number of threads. Reads with pread: a file that another process
/// cuts short ends in an Error, where mapped memory would end in SIGBUS.
class InputFile {
 public:
  /// @throws Error (kind) when the path cannot be opened or is no regular file
  explicit InputFile(const std::filesystem::path& path, ErrorKind kind = ErrorKind::checkpoint);

  /// Fills `into` from the bytes at `offset` on. @throws Error (kind) when the file ends before
  void read_at(std::int64_t offset, std::span<std::byte> into) const;
  std::int64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }
  ErrorKind kind() const { return kind_; }

 private:
  std::filesystem::path path_;
  ErrorKind kind_;
  FileDescriptor file_;
  std::int64_t size_ = 0;
};

struct FileRecord {
  std::int64_t bytes = 0;
  std::string checksum;
};

/// Writes a new file from front to back, hashing on the way; every call is checked. A file that was not
/// finished is removed. @throws Error (checkpoint), on a full disk with what was free and what to do
class OutputFile {
 public:
  /// Replaces what is at `path`. Where half a file must never be seen under its final name, write into a
  /// StagedFolder.
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(OutputFile&&) = default;
  OutputFile& operator=(OutputFile&&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Flushes to the disk and closes. Nothing may be written after it.
  FileRecord finish();
  std::int64_t written() const { return written_; }

 private:
  void write_through(std::span<const std::byte> bytes);

  std::filesystem::path path_;
  FileDescriptor file_;
  std::vector<std::byte> buffer_;
  Checksum checksum_;
  std::int64_t written_ = 0;
};

/// A folder that appears whole or not at all: filled under a hidden name beside its target, flushed, then
/// renamed.
class StagedFolder {
 public:
  /// Makes `.tmp-NAME.HOST-PID-RANDOM` beside the target, and the target's parents. @throws Error
  /// (checkpoint)
  explicit StagedFolder(const std::filesystem::path& target);
  /// Removes the folder unless it was committed.
  ~StagedFolder();
  StagedFolder(StagedFolder&&) = default;
  StagedFolder& operator=(StagedFolder&&) = delete;

  /// Where to write.
  const std::filesystem::path& path() const { return path_; }
  /// Flushes all files and folders to the disk and takes the target's place; what stood there is then
  /// deleted.
  void commit();

  /// Removes the staged folders in `parent` whose process no longer runs. Returns how many.
  static int sweep(const std::filesystem::path& parent);

 private:
  std::filesystem::path target_, path_;
  FileDescriptor lock_;  // a lock on the staged folder: it ends with the process, however that ends
};

/// Keeps a second process out of a run folder. Ends with the process, so no stale lock has to be broken.
class FileLock {
 public:
  /// @throws Error (usage) naming the process and host that hold the folder
  explicit FileLock(const std::filesystem::path& folder);

 private:
  FileDescriptor file_;
};

/// Bytes that this user may still write on the file system of `path` (or of its closest parent that exists).
std::int64_t free_space(const std::filesystem::path& path);
/// @throws Error (checkpoint) with what is needed and what is free. `what` names the need: "a checkpoint"
void require_free_space(const std::filesystem::path& path, std::int64_t bytes, const std::string& what);

/// Makes a write beyond the limit of `ulimit -f` fail like any other, instead of ending the process.
void ignore_file_size_signal();

/// 1536 as "1.5 KiB".
std::string readable_bytes(std::int64_t bytes);

}  // namespace bireme
