#include "launch/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace bireme {

AppendFile::AppendFile(std::filesystem::path path) : path_(std::move(path)) {}

bool AppendFile::lose(int error) {
  ++lost_;
  error_ = error;
  file_ = FileDescriptor();
  return false;
}

std::string AppendFile::problem() const { return std::strerror(error_); }

bool AppendFile::append(std::string_view record) {
  // Opened at the first record and again after a failure, so that a disk that is mended is used again.
  if (!file_) file_ = FileDescriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!file_) return lose(errno);
  struct stat before {};
  const bool can_undo = ::fstat(file_.get(), &before) == 0 && S_ISREG(before.st_mode);
  ssize_t written;
  do {
    written = ::write(file_.get(), record.data(), record.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(record.size())) return true;

  const int error = written < 0 ? errno : ENOSPC;
  // Half a record would spoil the next one. Where it cannot be taken back either, the reader meets a torn
  // line.
  if (written > 0 && can_undo) static_cast<void>(::ftruncate(file_.get(), before.st_size) == 0);
  return lose(error);
}

}  // namespace bireme
