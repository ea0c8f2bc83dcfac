#include "core/cuda/device_memory.h"

#include <spdlog/fmt/fmt.h>

#include <utility>

#include "core/base/error.h"
#include "core/cuda/convert.h"

namespace bireme::cuda {

DeviceMemory::DeviceMemory()
    : stream_(make_stream()), graphs_(stream_.get()), staging_(stream_.get(), graphs_) {
  cuda_check(cudaGetDevice(&index_), "ask for the current GPU");
}

DeviceMemory::~DeviceMemory() {
  cudaStreamSynchronize(stream_.get());
  release_cache();
}

std::byte* DeviceMemory::acquire(std::size_t bytes) {
  void* block = nullptr;
  cudaError_t status = cudaMalloc(&block, bytes);
  if (status == cudaErrorMemoryAllocation && graphs_.capturing() != nullptr) {
    // Captured work still uses blocks that its tensors have given back: it has to run before any may go.
    cudaGetLastError();
    graphs_.outside([&] {
      release_cache();
      status = cudaMalloc(&block, bytes);
    });
  }
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
  staging_.upload(from, to.raw(), bytes);
  return to;
}

void DeviceMemory::fill(const Tensor& tensor, double value) {
  if (tensor.bytes() == 0) return;
  if (value == 0) {
    cuda_check(cudaMemsetAsync(tensor.raw(), 0, tensor.bytes(), stream()), "clear memory");
  } else {
    fill_values(tensor, value, stream());
  }
}

void DeviceMemory::copy(const Tensor& from, const Tensor& to) {
  if (from.bytes() == 0) return;
  const bool converts = from.dtype() != to.dtype();
  if (from.is_on_host()) {
    const Tensor same = converts ? convert(*host_, from, to.dtype()) : from;
    staging_.upload(same.raw(), to.raw(), same.bytes());
  } else if (to.is_on_host()) {
    if (converts) return bireme::copy(bireme::on_host(from), to);
    const Staging::Piece all{.from = from.raw(), .to = to.raw(), .bytes = from.bytes()};
    staging_.download({&all, 1});
  } else if (converts) {
    convert_values(from, to, stream());
  } else {
    cuda_check(cudaMemcpyAsync(to.raw(), from.raw(), from.bytes(), cudaMemcpyDeviceToDevice, stream()),
               "copy on the GPU");
  }
}

void DeviceMemory::copy_rows(const RowPieces& pieces) {
  if (pieces.bytes == 0 || pieces.rows == 0) return;
  cuda_check(cudaMemcpy2DAsync(pieces.to, pieces.to_stride, pieces.from, pieces.from_stride, pieces.bytes,
                               static_cast<std::size_t>(pieces.rows), cudaMemcpyDeviceToDevice, stream()),
             "copy on the GPU");
}

std::vector<Tensor> DeviceMemory::on_host(std::span<const Tensor> tensors) {
  std::vector<Tensor> copies;
  std::vector<Staging::Piece> pieces;
  for (const Tensor& tensor : tensors) {
    if (tensor.is_on_host()) {
      copies.push_back(tensor);
      continue;
    }
    copies.emplace_back(*host_, tensor.shape(), tensor.dtype());
    pieces.push_back({.from = tensor.raw(), .to = copies.back().raw(), .bytes = tensor.bytes()});
  }
  staging_.download(pieces);
  return copies;
}

}  // namespace bireme::cuda
