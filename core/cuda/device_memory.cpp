#include "core/cuda/device_memory.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "core/base/error.h"
#include "core/cuda/convert.h"

namespace bireme::cuda {

Staging::~Staging() {
  for (const Buffer& buffer : buffers_) cudaFreeHost(buffer.data);
}

Staging::Buffer& Staging::free_buffer(std::size_t bytes) {
  for (Buffer& buffer : buffers_)
    if (buffer.bytes >= bytes && cudaEventQuery(buffer.sent.get()) == cudaSuccess) return buffer;
  cudaGetLastError();  // "not ready" is no failure
  constexpr std::size_t kSmallest = 64 << 10;
  const std::size_t size = std::bit_ceil(std::max(bytes, kSmallest));
  void* data = nullptr;
  cuda_check(cudaMallocHost(&data, size), "pin memory of the host");
  buffers_.push_back({.data = static_cast<std::byte*>(data), .bytes = size, .sent = make_event()});
  return buffers_.back();
}

void Staging::upload(const void* from, std::byte* to, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return;
  Buffer& buffer = free_buffer(bytes);
  std::memcpy(buffer.data, from, bytes);
  cuda_check(cudaMemcpyAsync(to, buffer.data, bytes, cudaMemcpyHostToDevice, stream), "copy to the GPU");
  cuda_check(cudaEventRecord(buffer.sent.get(), stream), "mark the end of a copy");
}

namespace {

bool is_on_host(const Tensor& tensor) { return tensor.device().type == DeviceType::cpu; }

}  // namespace

DeviceMemory::DeviceMemory(Kind kind) : kind_(kind) {
  cuda_check(cudaGetDevice(&index_), "ask for the current GPU");
  stream_ = make_stream();
}

DeviceMemory::~DeviceMemory() {
  cudaStreamSynchronize(stream_.get());
  release_cache();
}

std::byte* DeviceMemory::acquire(std::size_t bytes) {
  void* block = nullptr;
  const cudaError_t status = kind_ == Kind::managed ? cudaMallocManaged(&block, bytes, cudaMemAttachGlobal)
                                                    : cudaMalloc(&block, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    // The caller gives back what is cached and asks again, once.
    if (std::exchange(missed_, bytes) == bytes) refuse(bytes);
    return nullptr;
  }
  cuda_check(status, "allocate memory");
  missed_ = 0;
  return static_cast<std::byte*>(block);
}

void DeviceMemory::release(std::byte* block, std::size_t) { cudaFree(block); }

void DeviceMemory::refuse(std::size_t bytes) const {
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw Error(ErrorKind::other,
              fmt::format("out of memory: {} KiB asked for, {} KiB held by tensors, {} of {} KiB free",
                          bytes >> 10, statistics().in_use >> 10, free >> 10, total >> 10),
              fmt::format("GPU {}", index_),
              "lower data.batch_size, raise parallel.accumulate, or set precision.recompute to true");
}

Tensor DeviceMemory::upload_bytes(const void* from, std::size_t bytes) {
  Tensor to(*this, {static_cast<std::int64_t>(bytes)}, DType::u8);
  staging_.upload(from, to.raw(), bytes, stream());
  return to;
}

Tensor DeviceMemory::here(const Tensor& tensor) {
  if (!tensor.defined() || !is_on_host(tensor)) return tensor;
  Tensor to(*this, tensor.shape(), tensor.dtype());
  staging_.upload(tensor.raw(), to.raw(), tensor.bytes(), stream());
  return to;
}

void DeviceMemory::download(const Tensor& from, void* to) const {
  cuda_check(cudaMemcpyAsync(to, from.raw(), from.bytes(), cudaMemcpyDeviceToHost, stream()),
             "copy to the host");
  synchronize(stream(), "copy to the host");
}

Tensor DeviceMemory::on_host(const Tensor& tensor) const {
  if (is_on_host(tensor)) return tensor;
  Tensor to(*make_host_memory(), tensor.shape(), tensor.dtype());
  download(tensor, to.raw());
  return to;
}

void DeviceMemory::fill(const Tensor& tensor, double value) const {
  if (tensor.bytes() == 0) return;
  if (value == 0) {
    cuda_check(cudaMemsetAsync(tensor.raw(), 0, tensor.bytes(), stream()), "clear memory");
  } else {
    fill_values(tensor, value, stream());
  }
}

Tensor DeviceMemory::converted(const Tensor& tensor, DType type) {
  Tensor to(*this, tensor.shape(), type);
  if (tensor.bytes() > 0) convert_values(tensor, to, stream());
  return to;
}

}  // namespace bireme::cuda
