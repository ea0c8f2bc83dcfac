#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "cuda_api.h"
#include "tests/cuda_on_cpu/graph.h"

namespace cuda_on_cpu {

/// A mark in the order of a stream's work, as often as it is recorded.
class Event {
 public:
  std::shared_ptr<Event> self;              // until it is destroyed; queued work keeps it as well
  std::atomic<std::uint64_t> recorded = 0;  // of records queued, the last
  std::atomic<std::uint64_t> reached = 0;   // of records executed, the last
  std::atomic<bool> is_captured = false;    // the last record was, at this place
  CapturePlace place;
};

/// Work in its order. Nothing runs before somebody waits; then streams take turns at random, held back only
/// by events.
class Stream {
 public:
  struct Task {
    std::function<void()> work;          // or
    std::shared_ptr<Event> record = {};  // reaches `ticket`, or
    std::shared_ptr<Event> wait = {};    // until it has reached `ticket`, or
    std::shared_ptr<Replay> graph = {};  // a node a turn
    std::uint64_t ticket = 0;
  };
  std::deque<Task> tasks;
  CapturePlace place;  // where its work goes instead while it is captured
};
Stream& stream_of(cudaStream_t stream);

/// Queues work, and runs it at once where CUDA_LAUNCH_BLOCKING is set; or makes it a node of a graph, when
/// the stream is captured.
void enqueue(cudaStream_t stream, const What& what, std::function<void()> work);
/// Queues a task of a stream that is not captured.
void enqueue(cudaStream_t stream, Stream::Task task);
/// Of all that is done with streams, captures and graphs.
std::unique_lock<std::recursive_mutex> lock_streams();
/// For cudaGetLastError(). Returns it.
cudaError_t remember(cudaError_t error);
/// Runs all that is queued.
cudaError_t finish_all();
/// Runs queued work of any streams until this one has none left.
cudaError_t finish(cudaStream_t stream);

/// While one exists, the host may touch device memory.
class OpenHeap {
 public:
  OpenHeap();
  ~OpenHeap();
  OpenHeap(const OpenHeap&) = delete;
  OpenHeap& operator=(const OpenHeap&) = delete;
};
bool is_device_memory(const void* address);
bool is_pinned_memory(const void* address);

}  // namespace cuda_on_cpu
