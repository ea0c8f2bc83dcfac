#include "core/cuda/runtime.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/cuda/devices.h"

namespace bireme::cuda {

void cuda_check(cudaError_t status, const char* attempt) {
  if (status == cudaSuccess) return;
  const bool is_captured =
      status >= cudaErrorStreamCaptureUnsupported && status <= cudaErrorStreamCaptureWrongThread;
  int device = -1;
  cudaGetDevice(&device);
  throw Error(
      ErrorKind::other, fmt::format("could not {}: {}", attempt, cudaGetErrorString(status)),
      fmt::format("GPU {}{}", device, is_captured ? ", in a stretch that is captured as a graph" : ""),
      is_captured
          ? "this is a fault of the program: set run.cuda_graphs to false, and please report it "
            "with the configuration"
          : "look for the first error in the logs of all ranks; CUDA_LAUNCH_BLOCKING=1 names the kernel");
}

Stream make_stream() {
  cudaStream_t stream = nullptr;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
  return Stream(stream);
}

Event make_event() {
  cudaEvent_t event = nullptr;
  cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event");
  return Event(event);
}

void order(cudaStream_t earlier, cudaStream_t later, const Event& through) {
  cuda_check(cudaEventRecord(through.get(), earlier), "mark a place in a stream");
  cuda_check(cudaStreamWaitEvent(later, through.get(), 0), "let a stream wait for another");
}

void synchronize(cudaStream_t stream, const char* attempt) {
  cuda_check(cudaStreamSynchronize(stream), attempt);
}

std::int64_t shared_memory_of_block() {
  int device = 0, bytes = 0;
  cuda_check(cudaGetDevice(&device), "ask for the current GPU");
  cuda_check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "ask for the shared memory of a block");
  return bytes;
}

void choose_device(int local_rank, int local_size) {
  const DeviceReport found = find_devices();
  if (found.count == 0)
    throw Error(ErrorKind::no_device, found.explanation, "run.device", "use --run.device cpu");
  if (local_size > found.count)
    throw Error(ErrorKind::no_device,
                fmt::format("{} ranks on this host, but {} GPU{}", local_size, found.count,
                            found.count == 1 ? "" : "s"),
                "run.device", "start one rank a GPU (--ntasks-per-node), or use --run.device cpu");
  cuda_check(cudaSetDevice(local_rank), "choose a GPU");
}

}  // namespace bireme::cuda
