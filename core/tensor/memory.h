#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/tensor/types.h"

namespace bireme {

struct MemoryStatistics {
  std::size_t in_use = 0;    ///< bytes held by live tensors
  std::size_t peak = 0;      ///< largest value of in_use
  std::size_t reserved = 0;  ///< bytes taken from the system, cached blocks included
};

/// Hands out blocks of one device's memory, 64-byte aligned on the host, and keeps freed blocks for the next
/// request of that size: a training step asks for the same sizes again and again, so after the first step the
/// system is not asked any more and the same step gets the same addresses. Thread-safe. Blocks may outlive
/// the Memory object's handle.
class Memory : public std::enable_shared_from_this<Memory> {
 public:
  virtual ~Memory() = default;

  /// @throws Error (other) naming the bytes asked for and those in use when the system has no more
  std::shared_ptr<std::byte> allocate(std::size_t bytes);
  MemoryStatistics statistics() const;
  /// Gives cached blocks back to the system.
  void release_cache();

  virtual Device device() const = 0;

 protected:
  virtual std::byte* acquire(std::size_t bytes) = 0;
  virtual void release(std::byte* block, std::size_t bytes) = 0;

 private:
  void give_back(std::byte* block, std::size_t bytes);
  mutable std::mutex mutex_;
  std::unordered_map<std::size_t, std::vector<std::byte*>> free_;
  MemoryStatistics statistics_;
};

/// Host memory. One is made by the CPU backend for a run; tests and tools make their own.
std::shared_ptr<Memory> make_host_memory();

}  // namespace bireme
