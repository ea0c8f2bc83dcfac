#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/tensor/types.h"

namespace bireme {

class Tensor;

struct MemoryStatistics {
  std::size_t in_use = 0;    ///< bytes held by live tensors
  std::size_t peak = 0;      ///< largest value of in_use
  std::size_t reserved = 0;  ///< bytes taken from the system, cached blocks included
};

/// Some bytes of each of many rows that are equally far apart, and where they go.
struct RowPieces {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  std::size_t from_stride = 0, to_stride = 0;  ///< bytes from one row to the next
  std::size_t bytes = 0;                       ///< of each row
  std::int64_t rows = 0;
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
  /// Memory that the host reads and writes in place, for what it makes and kernels only read: positions,
  /// drawn numbers, rows of a batch. This one, where it is such.
  virtual Memory& host() = 0;

  // What the functions of these names in tensor.h do with tensors that lie here, in the order of the device's
  // work.
  virtual void fill(const Tensor& tensor, double value) = 0;
  /// One of the two lies here, the other here or on the host.
  virtual void copy(const Tensor& from, const Tensor& to) = 0;
  virtual void copy_rows(const RowPieces& pieces) = 0;  ///< from here to here
  virtual std::vector<Tensor> on_host(std::span<const Tensor> tensors) = 0;

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
