#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "cuda_api.h"

namespace cuda_on_cpu {

/// What kind of work something is, and which of its kind: a kernel by its address. Arguments do not count,
/// nor does the size of a grid: an update of a graph may change them.
struct What {
  const char* kind;
  std::uintptr_t which = 0;
};

/// One number of several, for What::which.
template <class... T>
std::uintptr_t hash(T... values) {
  std::uintptr_t all = 17;
  ((all = all * 0x9E3779B1U + static_cast<std::uintptr_t>(values)), ...);
  return all;
}

struct GraphNode {
  What what;
  std::function<void()> work;
  std::vector<std::size_t> after;  // nodes before it in the list
};
struct Graph {
  std::vector<GraphNode> nodes;
};
/// Launches that are queued keep the nodes that it had when they were.
struct Executable {
  std::shared_ptr<const std::vector<GraphNode>> nodes;
};

/// Work that streams put into a graph instead of running it: the stream where it began, and those that came
/// to wait for an event of it.
struct Capture {
  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  std::vector<Stream*> streams;
  Graph graph;
  bool is_invalid = false, has_ended = false;

  /// Whether one of the streams holds work that the origin does not wait for.
  bool has_unjoined_work() const;
};

/// A place in a capture: behind these nodes.
struct CapturePlace {
  std::shared_ptr<Capture> capture;  // null: none
  std::vector<std::size_t> after;

  void add(GraphNode node);
  /// A stream waits for an event that was recorded here.
  cudaError_t let_wait(Stream& stream) const;
  /// Somebody wants to know of an event that was recorded here whether it is reached.
  cudaError_t refuse() const;
};

/// A launch of a graph: its nodes in any order that its edges allow.
class Replay {
 public:
  explicit Replay(std::shared_ptr<const std::vector<GraphNode>> nodes);
  bool is_done() const { return left_ == 0; }
  /// The work of a node whose predecessors were taken; empty when there is none.
  std::function<void()> take_one();

 private:
  std::shared_ptr<const std::vector<GraphNode>> nodes_;
  std::vector<bool> taken_;
  std::size_t left_;
};

/// The error of a call that waits for this stream, when it is captured. The capture is of no more use then.
cudaError_t refuse_if_captured(cudaStream_t stream);

/// Strict ones forbid calls that may wait behind the caller's back; a relaxed one does not.
enum class Captures { all, strict };
/// The error of a call that such captures forbid, when one is under way, which then is of no more use.
cudaError_t refuse_during(Captures which);
bool captures_strictly();

}  // namespace cuda_on_cpu
