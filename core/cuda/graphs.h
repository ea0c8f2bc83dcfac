#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/cuda/runtime.h"
#include "core/ops/backend.h"

namespace bireme::cuda {

struct GraphTraits {
  using Handle = cudaGraph_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle graph) noexcept { cudaGraphDestroy(graph); }
};
struct ExecutableTraits {
  using Handle = cudaGraphExec_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle executable) noexcept { cudaGraphExecDestroy(executable); }
};

/// One run of a graph. Its work is captured first, which queues nothing: events that are recorded meanwhile
/// tell nothing to the host, and what captured work reads and writes has to stay. Thread-safe.
class GraphRun {
 public:
  GraphRun() : end_(make_event()) {}

  /// Whether the GPU has been given the work.
  bool is_started() const { return state_ == State::started; }
  /// Whether the work is dropped: an error came in between, or there was none.
  bool is_dropped() const { return state_ == State::dropped; }
  /// As cudaEventQuery() of an event behind the work; success where it was dropped.
  cudaError_t query() const;
  /// Until the work is done. It is started, or dropped.
  void wait() const;

 private:
  friend class Graphs;
  enum class State { captured, started, dropped };
  std::atomic<State> state_ = State::captured;
  Event end_;  // recorded before the state becomes `started`
};

/// Runs stretches of a stream's work as graphs: a stretch is captured each time, its addresses and numbers
/// are put into the graph that was instantiated before, and that is launched by a single call. Where a
/// stretch has other kernels than before, another graph is instantiated.
///
/// Wherever the host has to wait in the middle, the stretch is cut: what was captured so far runs as a graph
/// of its own, and what follows becomes the next one. Calls come from one thread.
class Graphs {
 public:
  /// @param stream  outlives this
  explicit Graphs(cudaStream_t stream) : stream_(stream) {}

  /// Streams that events order behind the first one, such as that of collectives, become part of what is
  /// captured; they are joined wherever it begins and ends.
  void add_stream(cudaStream_t stream) { others_.push_back(stream); }
  void remove_stream(cudaStream_t stream) { std::erase(others_, stream); }

  /// Runs `work`. The first stretch of a name is queued as it comes: libraries choose their kernels, buffers
  /// are allocated, collectives find each other. An error ends the capture; what was captured is dropped.
  void run(std::string_view name, const std::function<void()>& work);

  /// Of which what is queued now becomes part; null: it is queued as it comes.
  std::shared_ptr<const GraphRun> capturing() const { return run_; }
  /// Runs `work`, which waits for the stream, outside of any capture: a stretch is cut before it, and goes on
  /// behind it.
  void outside(const std::function<void()>& work);

  const CaptureStatistics& statistics() const { return statistics_; }

 private:
  struct Slot {
    Owned<ExecutableTraits> executable;
    std::shared_ptr<const GraphRun> last;
  };
  /// The graphs of a stretch between its cuts, from its second time on.
  struct Stretch {
    std::vector<Slot> slots;
    std::size_t next = 0;
  };

  void begin();
  void start();
  void drop();
  Owned<GraphTraits> end_capture();
  void launch(const Owned<GraphTraits>& graph, const std::shared_ptr<GraphRun>& run);
  bool update(const Owned<ExecutableTraits>& executable, const Owned<GraphTraits>& graph);

  cudaStream_t stream_;
  std::vector<cudaStream_t> others_;
  Event through_ = make_event();
  std::map<std::string, Stretch, std::less<>> stretches_;
  Stretch* stretch_ = nullptr;     // under way
  std::shared_ptr<GraphRun> run_;  // being captured
  CaptureStatistics statistics_;
};

}  // namespace bireme::cuda
