#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "cuda_api.h"
#include "tests/cuda_on_cpu/stream.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace cuda_on_cpu {

namespace {

constexpr std::size_t kAlignment = 512;
constexpr int kNaN = 0xff;  // every floating-point number made of such bytes is one

std::size_t number_from_environment(const char* name, std::size_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

std::size_t memory_size() { return number_from_environment("CUDA_ON_CPU_MEMORY", std::size_t{8} << 30); }

/// Addresses that the host cannot touch but while a kernel or a copy runs. Each block ends in a fence.
class Heap {
 public:
  Heap() : size_(memory_size() / kAlignment * kAlignment) {
    void* base = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(base);
  }

  std::byte* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const std::size_t room = (bytes + 2 * kAlignment - 1) / kAlignment * kAlignment;  // and a fence
    std::size_t offset = end_;
    const auto fits =
        std::find_if(free_.begin(), free_.end(), [&](const auto& hole) { return hole.second >= room; });
    if (fits != free_.end()) {
      offset = fits->first;
      const std::size_t rest = fits->second - room;
      free_.erase(fits);
      if (rest > 0) free_[offset + room] = rest;
    } else {
      if (end_ + room > size_) return nullptr;
      end_ += room;
      if (open_ > 0) mprotect(base_, end_, PROT_READ | PROT_WRITE);
    }
    used_[offset] = {bytes, room};
    in_use_ += room;
    const OpenHeap open;
    ASAN_UNPOISON_MEMORY_REGION(base_ + offset, room);
    std::memset(base_ + offset, kNaN, room);
    ASAN_POISON_MEMORY_REGION(base_ + offset + bytes, room - bytes);
    return base_ + offset;
  }

  bool release(const void* block) {
    const std::lock_guard lock(mutex_);
    const auto found = used_.find(offset_of(block));
    if (found == used_.end()) return false;
    const auto [offset, sizes] = *found;
    const OpenHeap open;
    ASAN_UNPOISON_MEMORY_REGION(base_ + offset, sizes.room);
    std::memset(base_ + offset, kNaN, sizes.room);
    ASAN_POISON_MEMORY_REGION(base_ + offset, sizes.room);
    in_use_ -= sizes.room;
    insert_hole(offset, sizes.room);
    used_.erase(found);
    return true;
  }

  bool contains(const void* address) const { return address >= base_ && address < base_ + size_; }
  void open() {
    const std::lock_guard lock(mutex_);
    if (open_++ == 0 && end_ > 0) mprotect(base_, end_, PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--open_ == 0 && end_ > 0) mprotect(base_, end_, PROT_NONE);
  }
  std::size_t size() const { return size_; }
  std::size_t in_use() const { return in_use_; }

 private:
  struct Sizes {
    std::size_t bytes, room;
  };
  std::size_t offset_of(const void* block) const {
    return static_cast<std::size_t>(static_cast<const std::byte*>(block) - base_);
  }
  void insert_hole(std::size_t offset, std::size_t room) {
    auto after = free_.lower_bound(offset);
    if (after != free_.end() && offset + room == after->first) {
      room += after->second;
      after = free_.erase(after);
    }
    if (after != free_.begin()) {
      const auto before = std::prev(after);
      if (before->first + before->second == offset) {
        before->second += room;
        return;
      }
    }
    free_[offset] = room;
  }

  std::recursive_mutex mutex_;
  std::byte* base_ = nullptr;
  std::size_t size_, end_ = 0, in_use_ = 0;
  int open_ = 0;
  std::map<std::size_t, std::size_t> free_;  // offset, bytes
  std::map<std::size_t, Sizes> used_;
};

Heap& heap() {
  static Heap* heap = new Heap;  // tensors may outlive every static object
  return *heap;
}

/// Blocks of pinned memory, by their address.
class PinnedBlocks {
 public:
  void* allocate(std::size_t bytes) {
    void* block = std::aligned_alloc(
        kAlignment, (std::max<std::size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment);
    if (block == nullptr) return nullptr;
    std::memset(block, kNaN, bytes);
    const std::lock_guard lock(mutex_);
    blocks_[block] = bytes;
    return block;
  }
  bool release(void* block) {
    const std::lock_guard lock(mutex_);
    const auto found = blocks_.find(block);
    if (found == blocks_.end()) return false;
    blocks_.erase(found);
    std::free(block);
    return true;
  }
  bool contains(const void* address) const {
    const std::lock_guard lock(mutex_);
    auto next = blocks_.upper_bound(const_cast<void*>(address));
    if (next == blocks_.begin()) return false;
    --next;
    return static_cast<const std::byte*>(address) < static_cast<const std::byte*>(next->first) + next->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<void*, std::size_t> blocks_;
};

PinnedBlocks& pinned() {
  static auto* blocks = new PinnedBlocks;
  return *blocks;
}

int device_count() { return static_cast<int>(number_from_environment("CUDA_ON_CPU_DEVICES", 1)); }
thread_local int current_device = 0;

}  // namespace

OpenHeap::OpenHeap() { heap().open(); }
OpenHeap::~OpenHeap() { heap().close(); }
bool is_device_memory(const void* address) { return heap().contains(address); }
bool is_pinned_memory(const void* address) { return pinned().contains(address); }

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace): the functions below are CUDA's

cudaError_t cudaMalloc(void** block, std::size_t bytes) {
  if (const cudaError_t error = refuse_during(Captures::strict)) return remember(error);
  *block = heap().allocate(bytes);
  return *block != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

/// As on a GPU, queued work that may still use the block is finished first; captured work is not.
cudaError_t cudaFree(void* block) {
  if (block == nullptr) return cudaSuccess;
  if (const cudaError_t error = refuse_during(Captures::strict)) return remember(error);
  finish_all();
  return heap().release(block) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMallocHost(void** block, std::size_t bytes) {
  if (const cudaError_t error = refuse_during(Captures::strict)) return remember(error);
  *block = pinned().allocate(bytes);
  return *block != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void* block) {
  if (block == nullptr) return cudaSuccess;
  if (const cudaError_t error = refuse_during(Captures::strict)) return remember(error);
  finish_all();
  return pinned().release(block) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = heap().size();
  *free = heap().size() - heap().in_use();
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device_count();
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
  *properties = {.name = "CUDA on the CPU (test harness)",
                 .major = 9,
                 .minor = 0,
                 .multiProcessorCount = 2,
                 .totalGlobalMem = heap().size(),
                 .sharedMemPerBlockOptin = 227 << 10};
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  cudaDeviceProp properties{};
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  *value = static_cast<int>(properties.sharedMemPerBlockOptin);
  return error;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
  std::snprintf(id, static_cast<std::size_t>(length), "0000:00:%02x.0", device);
  return cudaSuccess;
}
