#include "core/cuda/graphs.h"

#include <exception>
#include <utility>

namespace bireme::cuda {

cudaError_t GraphRun::query() const {
  switch (state_.load()) {
    case State::captured: return cudaErrorNotReady;
    case State::started: return cudaEventQuery(end_.get());
    case State::dropped: break;
  }
  return cudaSuccess;
}

void GraphRun::wait() const {
  if (is_started()) cuda_check(cudaEventSynchronize(end_.get()), "wait for a graph");
}

void Graphs::run(std::string_view name, const std::function<void()>& work) {
  const auto found = stretches_.find(name);
  if (found == stretches_.end()) {
    work();
    stretches_.emplace(name, Stretch{});
    return;
  }
  stretch_ = &found->second;
  stretch_->next = 0;
  try {
    begin();
    work();
    start();
  } catch (...) {
    drop();
    stretch_ = nullptr;
    throw;
  }
  stretch_ = nullptr;
}

void Graphs::outside(const std::function<void()>& work) {
  if (run_ == nullptr) return work();
  start();
  work();
  begin();
}

void Graphs::begin() {
  // A capture cannot wait for what other streams do outside of it; so the graph does as a whole.
  for (const cudaStream_t other : others_) order(other, stream_, through_);
  auto run = std::make_shared<GraphRun>();
  // Relaxed: kernels may ask for new memory on the way, and other threads for their events.
  cuda_check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "begin to capture a graph");
  run_ = std::move(run);
}

void Graphs::start() {
  const std::shared_ptr<GraphRun> run = std::exchange(run_, nullptr);
  try {
    launch(end_capture(), run);
  } catch (...) {
    run->state_ = GraphRun::State::dropped;
    throw;
  }
}

/// After an error, so that the stream is of use again. Never throws: the first error says more.
void Graphs::drop() {
  if (run_ == nullptr) return;
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream_, &graph);  // reports unjoined streams as well, and ends their capture too
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
  run_->state_ = GraphRun::State::dropped;
  run_ = nullptr;
}

Owned<GraphTraits> Graphs::end_capture() {
  std::exception_ptr error;
  try {
    for (const cudaStream_t other : others_) {
      cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
      cuda_check(cudaStreamIsCapturing(other, &status), "ask whether a stream is captured");
      // Whoever waits for a collective later need not do so on the GPU any more.
      if (status != cudaStreamCaptureStatusNone) order(other, stream_, through_);
    }
  } catch (...) {
    error = std::current_exception();  // the capture has to end all the same
  }
  cudaGraph_t graph = nullptr;
  const cudaError_t status = cudaStreamEndCapture(stream_, &graph);
  Owned<GraphTraits> owned(graph);
  if (status != cudaSuccess) cudaGetLastError();
  if (error) std::rethrow_exception(error);
  cuda_check(status, "end the capture of a graph");
  return owned;
}

void Graphs::launch(const Owned<GraphTraits>& graph, const std::shared_ptr<GraphRun>& run) {
  std::size_t nodes = 0;
  cuda_check(cudaGraphGetNodes(graph.get(), nullptr, &nodes), "count the nodes of a graph");
  if (nodes == 0) {
    run->state_ = GraphRun::State::dropped;
    return;
  }
  if (stretch_->next == stretch_->slots.size()) stretch_->slots.emplace_back();
  Slot& slot = stretch_->slots[stretch_->next++];
  if (!slot.executable || !update(slot.executable, graph)) {
    if (slot.last != nullptr && slot.last->query() == cudaErrorNotReady) {
      cudaGetLastError();
      slot.last->wait();  // before its executable goes
    }
    cudaGraphExec_t executable = nullptr;
    cuda_check(cudaGraphInstantiate(&executable, graph.get(), 0), "instantiate a graph");
    slot.executable = Owned<ExecutableTraits>(executable);
    ++statistics_.instantiations;
  }
  cuda_check(cudaGraphLaunch(slot.executable.get(), stream_), "launch a graph");
  ++statistics_.launches;
  cuda_check(cudaEventRecord(run->end_.get(), stream_), "mark the end of a graph");
  slot.last = run;
  run->state_ = GraphRun::State::started;
}

/// False: the graph has other kernels, or another order of them.
bool Graphs::update(const Owned<ExecutableTraits>& executable, const Owned<GraphTraits>& graph) {
  cudaGraphExecUpdateResultInfo why{};
  const cudaError_t status = cudaGraphExecUpdate(executable.get(), graph.get(), &why);
  if (status == cudaErrorGraphExecUpdateFailure) {
    cudaGetLastError();
    return false;
  }
  cuda_check(status, "update a graph");
  return true;
}

}  // namespace bireme::cuda
