#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>

#include "core/cuda/graphs.h"
#include "core/cuda/runtime.h"

namespace bireme::cuda {

/// Pinned host memory, which the GPU reads and writes by itself while the host goes on.
class Pinned {
 public:
  explicit Pinned(std::size_t bytes);
  ~Pinned() { cudaFreeHost(data_); }
  Pinned(Pinned&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Pinned& operator=(Pinned&&) = delete;

  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
};

/// The way of numbers between the host and the GPU. Host memory itself is not pinned: what goes to the GPU is
/// copied into pinned buffers and travels from there, so that the host may change or free it at once.
/// Thread-safe.
class Staging {
 public:
  /// @param stream  outlives this
  /// @param graphs  of that stream
  Staging(cudaStream_t stream, Graphs& graphs) : stream_(stream), graphs_(graphs) {}

  /// Queues a copy to the device. `from` may change as soon as this returns.
  void upload(const void* from, std::byte* to, std::size_t bytes);

  struct Piece {
    const std::byte* from;  ///< on the GPU
    std::byte* to;          ///< on the host
    std::size_t bytes;
  };
  /// Copies to the host what the stream has made, and waits for it: once, however many small pieces there
  /// are. Cuts a stretch that is being captured.
  void download(std::span<const Piece> pieces);

 private:
  struct Buffer {
    Pinned memory;
    Event sent;
    std::shared_ptr<const GraphRun> run;  // that reads the memory, in place of `sent`
  };
  Buffer& free_buffer(std::size_t bytes);
  static bool is_free(const Buffer& buffer);
  void wait_for(const Buffer& buffer);
  void land(std::span<const Piece> pieces);
  cudaStream_t stream_;
  Graphs& graphs_;
  std::mutex mutex_;
  // By size; each list in the order of use, in which the stream sets them free.
  std::map<std::size_t, std::deque<Buffer>> buffers_;
  std::size_t pinned_ = 0;          // bytes of all buffers
  std::optional<Pinned> arrivals_;  // from the first download on
};

}  // namespace bireme::cuda
