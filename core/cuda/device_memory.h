#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <span>
#include <vector>

#include "core/cuda/graphs.h"
#include "core/cuda/runtime.h"
#include "core/cuda/staging.h"
#include "core/tensor/tensor.h"

namespace bireme::cuda {

/// Memory that kernels reach, and the stream on which they run. Blocks are handed out in the order of that
/// stream: a block that the host has given back may be handed out again at once, since whoever gets it queues
/// its work behind that of the owner before. Work on other streams keeps its tensors until it is done.
class DeviceMemory final : public Memory {
 public:
  /// Of the current device.
  DeviceMemory();
  ~DeviceMemory() override;

  Device device() const override { return {DeviceType::cuda, index_}; }
  Memory& host() override { return *host_; }
  cudaStream_t stream() const { return stream_.get(); }
  /// Of this stream.
  Graphs& graphs() { return graphs_; }

  void fill(const Tensor& tensor, double value) override;
  void copy(const Tensor& from, const Tensor& to) override;
  void copy_rows(const RowPieces& pieces) override;
  std::vector<Tensor> on_host(std::span<const Tensor> tensors) override;

  /// The tensor itself where it lies on the GPU, else a copy there.
  Tensor here(const Tensor& tensor) { return on_device(*this, tensor); }
  /// A copy of a few numbers of the host's, as [bytes] u8.
  template <class T>
  Tensor upload(std::span<const T> values) {
    return upload_bytes(values.data(), values.size_bytes());
  }

 protected:
  std::byte* acquire(std::size_t bytes) override;
  void release(std::byte* block, std::size_t bytes) override;

 private:
  Tensor upload_bytes(const void* from, std::size_t bytes);
  [[noreturn]] void refuse(std::size_t bytes) const;
  std::shared_ptr<Memory> host_ = make_host_memory();
  int index_ = 0;
  std::size_t missed_ = 0;  // what there was no memory for in the last call of acquire()
  Stream stream_;
  Graphs graphs_;
  Staging staging_;
};

}  // namespace bireme::cuda
