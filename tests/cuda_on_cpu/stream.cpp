#include "tests/cuda_on_cpu/stream.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tests/cuda_on_cpu/block.h"
#include "tests/cuda_on_cpu/launches.h"

namespace cuda_on_cpu {

namespace {

/// All streams of the process, and the first thing that went wrong on any of them.
struct Queues {
  std::recursive_mutex mutex;
  Stream null_stream;
  std::vector<Stream*> streams{&null_stream};
  cudaError_t failure = cudaSuccess;
  std::string explanation;
  cudaError_t last = cudaSuccess;
};

Queues& queues() {
  static Queues all;
  return all;
}

void fail(const std::string& what) {
  Queues& all = queues();
  all.failure = cudaErrorLaunchFailure;
  all.explanation = what;
  for (Stream* stream : all.streams) stream->tasks.clear();
}

bool can_run(const Stream& stream) {
  if (stream.tasks.empty()) return false;
  const Stream::Task& task = stream.tasks.front();
  return task.wait == nullptr || task.wait->reached >= task.ticket;
}

void run_front(Stream& stream) {
  std::function<void()> work;
  if (const auto graph = stream.tasks.front().graph; graph != nullptr) {
    work = graph->take_one();
    if (graph->is_done()) stream.tasks.pop_front();
  } else {
    const Stream::Task task = std::move(stream.tasks.front());
    stream.tasks.pop_front();
    if (task.record != nullptr) task.record->reached = std::max(task.record->reached.load(), task.ticket);
    work = task.work;
  }
  if (!work) return;
  try {
    work();
  } catch (const Violation& violation) {
    fail(violation.what());
  }
}

template <class Done>
cudaError_t run_until(const Done& done) {
  Queues& all = queues();
  if (all.failure != cudaSuccess) return remember(all.failure);
  const OpenHeap open;
  while (!done()) {
    std::vector<Stream*> able;
    std::copy_if(all.streams.begin(), all.streams.end(), std::back_inserter(able),
                 [](const Stream* stream) { return can_run(*stream); });
    if (able.empty()) {
      fail("streams wait for events that nobody records");
    } else {
      run_front(*able[shuffle().below(static_cast<std::uint32_t>(able.size()))]);
    }
    if (all.failure != cudaSuccess) return remember(all.failure);
  }
  return cudaSuccess;
}

bool launches_block() {
  const char* value = std::getenv("CUDA_LAUNCH_BLOCKING");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

}  // namespace

std::unique_lock<std::recursive_mutex> lock_streams() { return std::unique_lock(queues().mutex); }

Stream& stream_of(cudaStream_t stream) { return stream != nullptr ? *stream : queues().null_stream; }

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) queues().last = error;
  return error;
}

void enqueue(cudaStream_t stream, Stream::Task task) {
  const auto lock = lock_streams();
  ++launches().calls;
  stream_of(stream).tasks.push_back(std::move(task));
  if (launches_block()) finish(stream);
}

void enqueue(cudaStream_t stream, const What& what, std::function<void()> work) {
  const auto lock = lock_streams();
  CapturePlace& place = stream_of(stream).place;
  if (place.capture != nullptr) {
    place.add({.what = what, .work = std::move(work), .after = {}});
  } else {
    enqueue(stream, {.work = std::move(work)});
  }
}

cudaError_t finish(cudaStream_t stream) {
  const auto lock = lock_streams();
  return run_until([&] { return stream_of(stream).tasks.empty(); });
}

cudaError_t finish_all() {
  const auto lock = lock_streams();
  return run_until([] {
    return std::all_of(queues().streams.begin(), queues().streams.end(),
                       [](const Stream* stream) { return stream->tasks.empty(); });
  });
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace): the functions below are CUDA's

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorLaunchFailure: return queues().explanation.c_str();
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureMerge:
      return "operation would result in a merge of separate capture sequences";
    case cudaErrorStreamCaptureUnmatched: return "capture was not ended in the same stream as it began";
    case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
    case cudaErrorCapturedEvent:
      return "operation not permitted on an event last recorded in a capturing stream";
    case cudaErrorStreamCaptureWrongThread:
      return "attempt to terminate a thread-local capture sequence from another thread";
    case cudaErrorGraphExecUpdateFailure:
      return "the graph update was not performed because it included changes which violated constraints "
             "specific to instantiated graph update";
  }
  return "unknown error";
}

cudaError_t cudaPeekAtLastError() {
  return queues().failure != cudaSuccess ? queues().failure : queues().last;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  queues().last = cudaSuccess;
  return error;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(queues().mutex);
  *stream = new Stream;
  queues().streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(queues().mutex);
  const cudaError_t error = finish(stream);
  std::erase(queues().streams, stream);
  delete stream;
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (const cudaError_t error = refuse_if_captured(stream)) return remember(error);
  ++launches().waits;
  return finish(stream);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const auto lock = lock_streams();
  if (const cudaError_t error = refuse_if_captured(stream)) return remember(error);
  if (queues().failure != cudaSuccess) return remember(queues().failure);
  return stream_of(stream).tasks.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t error = refuse_during(Captures::all)) return remember(error);
  return finish_all();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const auto lock = lock_streams();
  Stream& waiting = stream_of(stream);
  if (event->is_captured) return remember(event->place.let_wait(waiting));
  if (event->recorded == 0) return cudaSuccess;
  if (waiting.place.capture != nullptr) {
    waiting.place.capture->is_invalid = true;
    return remember(cudaErrorStreamCaptureIsolation);
  }
  waiting.tasks.push_back({.work = {}, .wait = event->self, .ticket = event->recorded});
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const auto created = std::make_shared<Event>();
  created->self = created;
  *event = created.get();
  return cudaSuccess;
}

/// Waits for nothing, as on a GPU, not even for another thread that runs the work: a record or a wait that is
/// queued still takes its turn.
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::shared_ptr<Event> last = std::move(event->self);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto lock = lock_streams();
  event->place = stream_of(stream).place;
  event->is_captured = event->place.capture != nullptr;
  if (!event->is_captured)
    stream_of(stream).tasks.push_back({.work = {}, .record = event->self, .ticket = ++event->recorded});
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const auto lock = lock_streams();
  if (const cudaError_t error = refuse_during(Captures::strict)) return remember(error);
  if (event->is_captured) return remember(event->place.refuse());
  ++launches().waits;
  const std::uint64_t ticket = event->recorded;
  return run_until([&] { return event->reached >= ticket; });
}

/// Whoever asks again and again sees the work go on.
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (!event->is_captured && !captures_strictly() && event->reached >= event->recorded) return cudaSuccess;
  const std::unique_lock lock(queues().mutex, std::try_to_lock);
  if (!lock) return cudaErrorNotReady;  // another thread runs the work
  if (const cudaError_t error = refuse_during(Captures::strict)) return remember(error);
  if (event->is_captured) return remember(event->place.refuse());
  if (event->reached >= event->recorded) return cudaSuccess;
  bool once = false;
  const cudaError_t error =
      run_until([&] { return event->reached >= event->recorded || std::exchange(once, true); });
  if (error != cudaSuccess) return error;
  return event->reached >= event->recorded ? cudaSuccess : cudaErrorNotReady;
}

namespace {

bool is_pageable(const void* address) { return !is_device_memory(address) && !is_pinned_memory(address); }

}  // namespace

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  if (is_pageable(from) || is_pageable(to))
    if (const cudaError_t error = refuse_if_captured(stream)) return remember(error);
  const What what{"copy", hash(is_device_memory(from), is_device_memory(to))};
  if (is_pageable(from)) {  // is read before the call returns
    auto copy = std::make_shared<std::vector<std::byte>>(bytes);
    std::memcpy(copy->data(), from, bytes);
    enqueue(stream, what, [=] {
      ++launches().copies;
      std::memcpy(to, copy->data(), bytes);
    });
  } else {
    enqueue(stream, what, [=] {
      ++launches().copies;
      std::memcpy(to, from, bytes);
    });
  }
  if (!is_pageable(to)) return cudaPeekAtLastError();
  ++launches().waits;
  return finish(stream);
}

/// Between addresses of the GPU.
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_stride, const void* from, std::size_t from_stride,
                              std::size_t bytes, std::size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind != cudaMemcpyDeviceToDevice || bytes > to_stride || bytes > from_stride)
    return remember(cudaErrorInvalidValue);
  enqueue(stream, {"copy of rows"}, [=] {
    ++launches().copies;
    for (std::size_t r = 0; r < rows; ++r)
      std::memcpy(static_cast<std::byte*>(to) + r * to_stride,
                  static_cast<const std::byte*>(from) + r * from_stride, bytes);
  });
  return cudaPeekAtLastError();
}

cudaError_t cudaMemsetAsync(void* to, int byte, std::size_t bytes, cudaStream_t stream) {
  enqueue(stream, {"fill"}, [=] {
    ++launches().copies;
    std::memset(to, byte, bytes);
  });
  return cudaPeekAtLastError();
}
