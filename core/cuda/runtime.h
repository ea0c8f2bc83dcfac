#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/base/owned.h"

namespace bireme::cuda {

/// Throws an Error that says what was attempted, when a call of the CUDA runtime failed.
void cuda_check(cudaError_t status, const char* attempt);

struct StreamTraits {
  using Handle = cudaStream_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle stream) noexcept { cudaStreamDestroy(stream); }
};
/// Queue of a GPU's work. Streams run side by side; events order them.
using Stream = Owned<StreamTraits>;
Stream make_stream();

struct EventTraits {
  using Handle = cudaEvent_t;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle event) noexcept { cudaEventDestroy(event); }
};
/// A mark in a stream's work, for other streams and the host to wait for. Takes no times.
using Event = Owned<EventTraits>;
Event make_event();

/// Everything queued on `later` from now on waits for what is queued on `earlier` until now.
void order(cudaStream_t earlier, cudaStream_t later, const Event& through);

void synchronize(cudaStream_t stream, const char* attempt);

/// Bytes of shared memory that a block of the current GPU may ask for.
std::int64_t shared_memory_of_block();

/// Chooses the GPU of this process: `local_rank` counts the ranks of this host.
/// @throws Error (no_device) when there is no GPU, the driver is too old, or there are fewer GPUs than ranks
void choose_device(int local_rank, int local_size);

}  // namespace bireme::cuda
