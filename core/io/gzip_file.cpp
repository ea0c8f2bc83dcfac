#include "core/io/gzip_file.h"

#include <spdlog/fmt/fmt.h>
#include <zlib.h>

#include <algorithm>

namespace bireme {

void GzipTraits::close(Handle file) noexcept { gzclose_r(file); }

GzipFile::GzipFile(const std::filesystem::path& path)
    : path_(path), file_(std::filesystem::is_directory(path) ? nullptr : gzopen(path.c_str(), "rb")) {
  if (!file_) fail("cannot open it");
  gzbuffer(file_.get(), 1 << 18);
}

void GzipFile::fail(const std::string& what) const {
  throw Error(ErrorKind::data, what, path_.string(), "check that it is the right file, and copy it again");
}

void GzipFile::fail_unpacking() const {
  int status = Z_OK;
  fail(fmt::format("does not unpack ({})", gzerror(file_.get(), &status)));
}

std::size_t GzipFile::read(std::uint8_t* into, std::size_t count) {
  std::size_t done = 0;
  while (done < count) {
    const auto piece = static_cast<unsigned>(std::min<std::size_t>(count - done, 1 << 30));
    const int got = gzread(file_.get(), into + done, piece);
    if (got < 0) fail_unpacking();
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  // A torn gzip stream reads as a short one; only the error state tells.
  int status = Z_OK;
  gzerror(file_.get(), &status);
  if (status != Z_OK && status != Z_STREAM_END) fail_unpacking();
  return done;
}

std::int64_t GzipFile::packed_offset() const { return gzoffset(file_.get()); }

}  // namespace bireme
