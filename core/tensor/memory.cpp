#include "core/tensor/memory.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"

namespace bireme {

namespace {

// Sizes are rounded so that tensors of nearly equal size share cached blocks; at most 1/8 is wasted.
std::size_t rounded(std::size_t bytes) {
  std::size_t step = 256;
  while (step * 16 < bytes) step *= 2;
  return std::max<std::size_t>(step, (bytes + step - 1) / step * step);
}

}  // namespace

std::shared_ptr<std::byte> Memory::allocate(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  std::byte* block = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (auto& blocks = free_[size]; !blocks.empty()) {
      block = blocks.back();
      blocks.pop_back();
    }
  }
  if (block == nullptr) {
    block = acquire(size);
    if (block == nullptr) {
      release_cache();
      block = acquire(size);
    }
    if (block == nullptr) {
      throw Error(ErrorKind::other,
                  fmt::format("out of memory: {} MiB asked for, {} MiB in use", size >> 20,
                              statistics().in_use >> 20),
                  "tensor memory", "lower data.batch_size, or set precision.recompute to true");
    }
    const std::lock_guard lock(mutex_);
    statistics_.reserved += size;
  }
  {
    const std::lock_guard lock(mutex_);
    statistics_.in_use += size;
    statistics_.peak = std::max(statistics_.peak, statistics_.in_use);
  }
  return {block, [self = shared_from_this(), size](std::byte* freed) { self->give_back(freed, size); }};
}

void Memory::give_back(std::byte* block, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  free_[bytes].push_back(block);
  statistics_.in_use -= bytes;
}

MemoryStatistics Memory::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

void Memory::release_cache() {
  const std::lock_guard lock(mutex_);
  for (auto& [size, blocks] : free_) {
    for (std::byte* block : blocks) release(block, size);
    statistics_.reserved -= size * blocks.size();
  }
  free_.clear();
}

}  // namespace bireme
