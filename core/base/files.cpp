#include "core/base/files.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <random>

#include "core/base/log.h"

namespace bireme {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;  // 1 MiB: few calls, and still in the second-level cache

/// The Error of a failed system call, with what to do about that errno.
[[noreturn]] void fail(ErrorKind kind, const std::string& attempt, const fs::path& path, int error) {
  std::string what = fmt::format("cannot {}: {}", attempt, std::strerror(error));
  std::string remedy = "check the disk and the file system it is on";
  if (error == ENOSPC) {
    std::error_code unknown;
    const fs::space_info space = fs::space(path.parent_path(), unknown);
    const std::string left =
        unknown ? "" : fmt::format(" ({} free)", readable_bytes(static_cast<std::int64_t>(space.available)));
    what = "disk is full" + left;
    remedy = "free some space or choose a folder on another disk; what was saved before is untouched";
  } else if (error == EDQUOT) {
    what = "disk quota is used up";
    remedy = "delete files or ask for a larger quota; what was saved before is untouched";
  } else if (error == EFBIG) {
    what = fmt::format("cannot {}: file size limit reached", attempt);
    remedy = "raise the limit (`ulimit -f`)";
  } else if (error == ENOENT) {
    what = fmt::format("cannot {}: no such file or folder", attempt);
    remedy = "check the path";
  } else if (error == EACCES || error == EPERM || error == EROFS) {
    remedy = "check the permissions of the file and its folder";
  }
  throw Error(kind, what, path.string(), remedy);
}

/// Opens, or returns -1 with errno; a signal does not count.
int open_retrying(const fs::path& path, int flags) {
  int descriptor = -1;
  do descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

FileDescriptor open_or_fail(const fs::path& path, int flags, ErrorKind kind, const std::string& attempt) {
  FileDescriptor file(open_retrying(path, flags));
  if (!file) fail(kind, attempt, path, errno);
  return file;
}

/// fsync; pipes and devices, which have nothing to flush, answer EINVAL.
void flush(int descriptor, const fs::path& path) {
  while (::fsync(descriptor) != 0) {
    if (errno == EINVAL || errno == EROFS) return;
    if (errno != EINTR) fail(ErrorKind::checkpoint, "flush to the disk", path, errno);
  }
}

void flush_path(const fs::path& path) {
  flush(open_or_fail(path, O_RDONLY, ErrorKind::checkpoint, "open").get(), path);
}

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

std::string unique_suffix() {
  std::random_device random;  // not a result of training: two processes must differ
  return fmt::format("{}-{}-{:08x}", host_name(), ::getpid(), random());
}

}  // namespace

void FileDescriptorTraits::close(int descriptor) noexcept { ::close(descriptor); }

std::string checksum_file(const fs::path& path, ErrorKind kind) {
  const InputFile file(path, kind);
  std::vector<std::byte> piece(kPiece);
  Checksum checksum;
  for (std::int64_t offset = 0; offset < file.size(); offset += static_cast<std::int64_t>(kPiece)) {
    const auto count = std::min<std::int64_t>(static_cast<std::int64_t>(kPiece), file.size() - offset);
    const std::span<std::byte> bytes = std::span(piece).first(static_cast<std::size_t>(count));
    file.read_at(offset, bytes);
    checksum.update(bytes);
  }
  return checksum.text();
}

std::string read_file(const fs::path& path, std::int64_t limit, ErrorKind kind) {
  const InputFile file(path, kind);
  if (file.size() > limit) {
    throw Error(
        kind,
        fmt::format("file has {}, at most {} are read", readable_bytes(file.size()), readable_bytes(limit)),
        path.string(), "check that this is the file that was meant");
  }
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

void write_file_atomically(const fs::path& path, std::string_view text) {
  const fs::path beside =
      parent_of(path) / fmt::format(".tmp-{}.{}", path.filename().string(), unique_suffix());
  OutputFile file(beside);
  file.write(text);
  file.finish();
  if (::rename(beside.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(beside.c_str());
    fail(ErrorKind::checkpoint, "replace the file", path, error);
  }
  flush_path(parent_of(path));
}

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

InputFile::InputFile(const fs::path& path, ErrorKind kind)
    : path_(path), kind_(kind), file_(open_or_fail(path, O_RDONLY | O_NONBLOCK, kind, "read")) {
  // O_NONBLOCK: opening a FIFO would wait for a writer that may never come.
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) fail(kind, "read", path, errno);
  if (!S_ISREG(status.st_mode))
    throw Error(kind, "cannot read: not a regular file", path.string(), "name a file");
  size_ = status.st_size;
}

void InputFile::read_at(std::int64_t offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    const ssize_t count =
        ::pread(file_.get(), into.data(), std::min(into.size(), std::size_t{1} << 30), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(kind_, "read", path_, errno);
    if (count == 0) {
      throw Error(kind_, fmt::format("file ends at byte {}, {} more were expected", offset, into.size()),
                  path_.string(), "the file is torn; copy or make it again");
    }
    into = into.subspan(static_cast<std::size_t>(count));
    offset += count;
  }
}

OutputFile::OutputFile(const fs::path& path)
    : path_(path), file_(open_or_fail(path, O_WRONLY | O_CREAT | O_TRUNC, ErrorKind::checkpoint, "create")) {
  buffer_.reserve(kPiece);
}

OutputFile::~OutputFile() {
  if (!file_) return;
  struct stat status {};
  if (::fstat(file_.get(), &status) == 0 && S_ISREG(status.st_mode)) ::unlink(path_.c_str());  // devices stay
}

void OutputFile::write(std::span<const std::byte> bytes) {
  assert(file_);
  checksum_.update(bytes);
  written_ += static_cast<std::int64_t>(bytes.size());
  if (buffer_.size() + bytes.size() > kPiece) {
    write_through(buffer_);
    buffer_.clear();
  }
  if (bytes.size() > kPiece) {
    write_through(bytes);
  } else {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
}

void OutputFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void OutputFile::write_through(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file_.get(), bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(ErrorKind::checkpoint, "write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

FileRecord OutputFile::finish() {
  write_through(buffer_);
  buffer_.clear();
  flush(file_.get(), path_);
  file_ = FileDescriptor();
  return {.bytes = written_, .checksum = checksum_.text()};
}

// ---- folders ----

namespace {

constexpr std::string_view kStagedPrefix = ".tmp-";

/// Flushes a folder from the leaves up: what a name points at is on the disk before the name.
void flush_tree(const fs::path& folder) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.is_symlink()) continue;
    if (entry.is_directory()) flush_tree(entry.path());
    if (entry.is_regular_file()) flush_path(entry.path());
  }
  flush_path(folder);
}

/// Puts `from` in the place of `to`; what was there ends up at `from`, or nothing does.
void exchange(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
  if (errno == EEXIST && ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0)
    return;
  if (errno != EINVAL && errno != ENOSYS)
    fail(ErrorKind::checkpoint, "rename the finished folder", to, errno);
  // A file system without the flags (NFS): two renames, with the old folder kept until the new one stands.
  const fs::path aside = from.string() + "-old";
  if (::rename(to.c_str(), aside.c_str()) != 0 && errno != ENOENT)
    fail(ErrorKind::checkpoint, "move aside", to, errno);
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const int error = errno;
    if (::rename(aside.c_str(), to.c_str()) != 0) log_warning("the old folder is now {}", aside.string());
    fail(ErrorKind::checkpoint, "rename the finished folder", to, error);
  }
  if (::rename(aside.c_str(), from.c_str()) != 0 && errno != ENOENT)
    fail(ErrorKind::checkpoint, "move", aside, errno);
}

/// True when the process that made the staged folder is gone: its lock is free, or, where the file system has
/// no locks on folders, its number names no process of this host.
bool is_abandoned(const fs::path& folder) {
  const FileDescriptor file(open_retrying(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  if (!file) return false;
  if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return true;
  if (errno == EWOULDBLOCK) return false;
  const std::string name = folder.filename().string(), mark = fmt::format(".{}-", host_name());
  const std::size_t at = name.rfind(mark);
  if (at == std::string::npos) return false;
  const long process = std::strtol(name.c_str() + at + mark.size(), nullptr, 10);
  return process > 0 && ::kill(static_cast<pid_t>(process), 0) != 0 && errno == ESRCH;
}

}  // namespace

StagedFolder::StagedFolder(const fs::path& target) : target_(target) {
  if (!target_.has_filename()) target_ = target_.parent_path();  // "folder/" means "folder"
  std::error_code error;
  fs::create_directories(parent_of(target_), error);
  if (error) fail(ErrorKind::checkpoint, "make the folder", parent_of(target_), error.value());
  path_ = parent_of(target_) /
          fmt::format("{}{}.{}", kStagedPrefix, target_.filename().string(), unique_suffix());
  if (::mkdir(path_.c_str(), 0777) != 0) fail(ErrorKind::checkpoint, "make the folder", path_, errno);
  lock_ = open_or_fail(path_, O_RDONLY | O_DIRECTORY, ErrorKind::checkpoint, "open");
  ::flock(lock_.get(),
          LOCK_SH | LOCK_NB);  // where folders cannot be locked, sweep() goes by the process number
}

StagedFolder::~StagedFolder() {
  if (!lock_) return;
  std::error_code ignored;  // what is left behind is swept at the next start
  fs::remove_all(path_, ignored);
}

void StagedFolder::commit() {
  flush_tree(path_);
  exchange(path_, target_);
  lock_ = FileDescriptor();
  flush_path(parent_of(target_));
  std::error_code ignored;  // the new folder stands; an old one that cannot be deleted is swept later
  fs::remove_all(path_, ignored);
}

int StagedFolder::sweep(const fs::path& parent) {
  int removed = 0;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kStagedPrefix) || !entry.is_directory() || !is_abandoned(entry.path())) continue;
    fs::remove_all(entry.path(), error);
    if (!error) ++removed;
  }
  return removed;
}

FileLock::FileLock(const fs::path& folder) {
  const fs::path path = folder / ".lock";
  file_ = open_or_fail(path, O_RDWR | O_CREAT, ErrorKind::checkpoint, "create the lock file");
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      log_warning("{} cannot be locked ({}): a second run in it would not be noticed", folder.string(),
                  std::strerror(errno));
      return;
    }
    std::array<char, 512> holder{};
    const bool is_named = ::pread(file_.get(), holder.data(), holder.size() - 1, 0) > 0;
    throw Error(ErrorKind::usage,
                fmt::format("run folder is in use by {}", is_named ? holder.data() : "another process"),
                folder.string(), "wait for that run to end, or choose another folder");
  }
  const std::string holder = fmt::format("process {} on {}", ::getpid(), host_name());
  if (::ftruncate(file_.get(), 0) != 0 || ::pwrite(file_.get(), holder.data(), holder.size(), 0) < 0)
    log_warning("cannot note the owner in {}: {}", path.string(), std::strerror(errno));
}

// ---- space ----

std::int64_t free_space(const fs::path& path) {
  std::error_code error;
  fs::path folder = fs::absolute(path);
  while (!fs::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0)
    fail(ErrorKind::checkpoint, "ask for the free space", folder, errno);
  return static_cast<std::int64_t>(status.f_bavail) * static_cast<std::int64_t>(status.f_frsize);
}

void require_free_space(const fs::path& path, std::int64_t bytes, const std::string& what) {
  const std::int64_t available = free_space(path);
  if (available >= bytes) return;
  throw Error(ErrorKind::checkpoint,
              fmt::format("{} needs {}, the disk has {} free", what, readable_bytes(bytes),
                          readable_bytes(available)),
              path.string(), "free some space or choose a folder on another disk");
}

void ignore_file_size_signal() { std::signal(SIGXFSZ, SIG_IGN); }

std::string readable_bytes(std::int64_t bytes) {
  constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace bireme
