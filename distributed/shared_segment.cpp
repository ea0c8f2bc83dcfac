#include "distributed/shared_segment.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/base/error.h"
#include "core/base/owned.h"

namespace bireme {

namespace {

constexpr std::size_t kPage = 4096;

struct FileTraits {
  using Handle = int;
  static Handle null() noexcept { return -1; }
  static void close(Handle file) noexcept { ::close(file); }
};

[[noreturn]] void fail(int code, const std::string& name, std::size_t bytes) {
  throw Error(ErrorKind::other,
              fmt::format("{} KiB of memory shared between ranks are not to be had ({})", bytes >> 10,
                          std::strerror(code)),
              "/dev/shm" + name,
              "give /dev/shm more room (in a container: --shm-size=1g), or remove stale files there");
}

int reserve(int file, std::size_t offset, std::size_t bytes) {
  int code = 0;
  do {
    code = posix_fallocate(file, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  } while (code == EINTR);
  return code;
}

std::atomic<int>& attached(std::byte* base) { return *reinterpret_cast<std::atomic<int>*>(base); }

}  // namespace

SharedSegment::SharedSegment(const Options& options)
    : part_bytes_((options.part_bytes + kPage - 1) / kPage * kPage) {
  bytes_ = kPage + static_cast<std::size_t>(options.parts) * part_bytes_;
  // Whoever comes first creates it; giving it its size again changes nothing.
  const Owned<FileTraits> owner(shm_open(options.name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!owner) fail(errno, options.name, bytes_);
  const int file = owner.get();
  const std::size_t own = kPage + static_cast<std::size_t>(options.index) * part_bytes_;
  int code = ftruncate(file, static_cast<off_t>(bytes_)) != 0 ? errno : 0;
  if (code == 0) code = reserve(file, 0, kPage);
  if (code == 0) code = reserve(file, own, part_bytes_);
  void* mapped = code == 0 ? mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  if (mapped == MAP_FAILED) {
    if (code == 0) code = errno;
    shm_unlink(options.name.c_str());
    fail(code, options.name, bytes_);
  }
  base_ = static_cast<std::byte*>(mapped);
}

SharedSegment::~SharedSegment() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

std::byte* SharedSegment::part(int index) const {
  return base_ + kPage + static_cast<std::size_t>(index) * part_bytes_;
}

void SharedSegment::wait_for_all(const Options& options) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::duration<double>(options.timeout_seconds);
  attached(base_).fetch_add(1);
  while (attached(base_).load() < options.parts) {
    if (Clock::now() > deadline) {
      shm_unlink(options.name.c_str());
      throw Error(ErrorKind::rank_lost,
                  fmt::format("only {} of the {} ranks of this host came within {:.0f} s",
                              attached(base_).load(), options.parts, options.timeout_seconds),
                  "/dev/shm" + options.name, "see the output of the other ranks for the first error");
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  if (options.index == 0) shm_unlink(options.name.c_str());
}

}  // namespace bireme
