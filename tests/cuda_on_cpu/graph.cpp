#include "tests/cuda_on_cpu/graph.h"

#include <algorithm>
#include <atomic>

#include "tests/cuda_on_cpu/block.h"
#include "tests/cuda_on_cpu/stream.h"

namespace cuda_on_cpu {

namespace {

/// Those under way. Guarded by lock_streams().
std::vector<std::shared_ptr<Capture>>& captures() {
  static std::vector<std::shared_ptr<Capture>> all;
  return all;
}
std::atomic<int> strict_captures{0};

bool is_strict(const Capture& capture) { return capture.mode != cudaStreamCaptureModeRelaxed; }

void add_once(std::vector<std::size_t>& places, const std::vector<std::size_t>& more) {
  places.insert(places.end(), more.begin(), more.end());
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
}

/// Leaves no stream captured.
void end(const std::shared_ptr<Capture>& capture) {
  for (Stream* stream : capture->streams) stream->place = {};
  capture->has_ended = true;
  if (is_strict(*capture)) --strict_captures;
  std::erase(captures(), capture);
}

}  // namespace

bool Capture::has_unjoined_work() const {
  std::vector<bool> joined(graph.nodes.size());
  std::vector<std::size_t> open = stream_of(origin).place.after;
  while (!open.empty()) {
    const std::size_t node = open.back();
    open.pop_back();
    if (joined[node]) continue;
    joined[node] = true;
    open.insert(open.end(), graph.nodes[node].after.begin(), graph.nodes[node].after.end());
  }
  return !std::all_of(streams.begin(), streams.end(), [&](const Stream* stream) {
    return std::all_of(stream->place.after.begin(), stream->place.after.end(),
                       [&](std::size_t node) { return joined[node]; });
  });
}

void CapturePlace::add(GraphNode node) {
  node.after = after;
  after = {capture->graph.nodes.size()};
  capture->graph.nodes.push_back(std::move(node));
}

cudaError_t CapturePlace::let_wait(Stream& stream) const {
  if (capture->has_ended) return cudaErrorCapturedEvent;
  if (stream.place.capture == nullptr) {
    stream.place.capture = capture;
    capture->streams.push_back(&stream);
  } else if (stream.place.capture != capture) {
    capture->is_invalid = stream.place.capture->is_invalid = true;
    return cudaErrorStreamCaptureMerge;
  }
  add_once(stream.place.after, after);
  return cudaSuccess;
}

cudaError_t CapturePlace::refuse() const {
  if (!capture->has_ended) capture->is_invalid = true;
  return cudaErrorCapturedEvent;
}

Replay::Replay(std::shared_ptr<const std::vector<GraphNode>> nodes)
    : nodes_(std::move(nodes)), taken_(nodes_->size()), left_(nodes_->size()) {}

std::function<void()> Replay::take_one() {
  std::vector<std::size_t> able;
  for (std::size_t i = 0; i < nodes_->size(); ++i) {
    const std::vector<std::size_t>& after = (*nodes_)[i].after;
    if (!taken_[i] && std::all_of(after.begin(), after.end(), [&](std::size_t node) { return taken_[node]; }))
      able.push_back(i);
  }
  if (able.empty()) return {};
  const std::size_t node = able[shuffle().below(static_cast<std::uint32_t>(able.size()))];
  taken_[node] = true;
  --left_;
  return (*nodes_)[node].work;
}

cudaError_t refuse_if_captured(cudaStream_t stream) {
  const auto lock = lock_streams();
  const std::shared_ptr<Capture>& capture = stream_of(stream).place.capture;
  if (capture == nullptr) return cudaSuccess;
  capture->is_invalid = true;
  return cudaErrorStreamCaptureUnsupported;
}

cudaError_t refuse_during(Captures which) {
  const auto lock = lock_streams();
  cudaError_t error = cudaSuccess;
  for (const auto& capture : captures()) {
    if (which == Captures::strict && !is_strict(*capture)) continue;
    capture->is_invalid = true;
    error = cudaErrorStreamCaptureUnsupported;
  }
  return error;
}

bool captures_strictly() { return strict_captures > 0; }

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace): the functions below are CUDA's

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const auto lock = lock_streams();
  Stream& origin = stream_of(stream);
  if (stream == nullptr || origin.place.capture != nullptr)
    return remember(cudaErrorStreamCaptureUnsupported);
  const auto capture =
      std::make_shared<Capture>(Capture{.origin = stream, .mode = mode, .streams = {&origin}, .graph = {}});
  origin.place = {capture, {}};
  captures().push_back(capture);
  if (is_strict(*capture)) ++strict_captures;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const auto lock = lock_streams();
  *graph = nullptr;
  const std::shared_ptr<Capture> capture = stream_of(stream).place.capture;
  if (capture == nullptr) return remember(cudaErrorInvalidValue);
  if (capture->origin != stream) {
    capture->is_invalid = true;
    return remember(cudaErrorStreamCaptureUnmatched);
  }
  const bool is_unjoined = capture->has_unjoined_work();
  end(capture);
  if (capture->is_invalid) return remember(cudaErrorStreamCaptureInvalidated);
  if (is_unjoined) return remember(cudaErrorStreamCaptureUnjoined);
  *graph = new Graph(std::move(capture->graph));
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const auto lock = lock_streams();
  const std::shared_ptr<Capture>& capture = stream_of(stream).place.capture;
  *status = capture == nullptr    ? cudaStreamCaptureStatusNone
            : capture->is_invalid ? cudaStreamCaptureStatusInvalidated
                                  : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

/// Only how many there are.
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* count) {
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new Executable{std::make_shared<const std::vector<GraphNode>>(graph->nodes)};
  return cudaSuccess;
}

/// A GPU's driver takes some other kernels too. This one is strict, so that tests see what has changed.
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* result) {
  const std::vector<GraphNode>&before = *executable->nodes, &now = graph->nodes;
  const auto refuse = [&](cudaGraphExecUpdateResult why) {
    result->result = why;
    return remember(cudaErrorGraphExecUpdateFailure);
  };
  if (before.size() != now.size()) return refuse(cudaGraphExecUpdateErrorTopologyChanged);
  for (std::size_t i = 0; i < now.size(); ++i) {
    if (before[i].after != now[i].after) return refuse(cudaGraphExecUpdateErrorTopologyChanged);
    if (std::string(before[i].what.kind) != now[i].what.kind)
      return refuse(cudaGraphExecUpdateErrorNodeTypeChanged);
    if (before[i].what.which != now[i].what.which) return refuse(cudaGraphExecUpdateErrorFunctionChanged);
  }
  executable->nodes = std::make_shared<const std::vector<GraphNode>>(now);
  result->result = cudaGraphExecUpdateSuccess;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (const cudaError_t error = refuse_if_captured(stream)) return remember(error);
  enqueue(stream, {.work = {}, .graph = std::make_shared<Replay>(executable->nodes)});
  return cudaPeekAtLastError();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
