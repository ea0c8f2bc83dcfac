#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <span>
#include <vector>

#include "core/cuda/runtime.h"
#include "core/tensor/tensor.h"

namespace bireme::cuda {

/// Pinned host memory through which numbers travel to the GPU while the host goes on.
class Staging {
 public:
  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Queues a copy to the device. `from` may change as soon as this returns.
  void upload(const void* from, std::byte* to, std::size_t bytes, cudaStream_t stream);

 private:
  struct Buffer {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
    Event sent;
  };
  Buffer& free_buffer(std::size_t bytes);
  std::vector<Buffer> buffers_;
};

/// Memory that kernels reach, and the stream on which they run. Blocks are handed out in the order of that
/// stream: a block that the host has given back may be handed out again at once, since whoever gets it queues
/// its work behind that of the owner before. Work on other streams keeps its tensors until it is done.
class DeviceMemory final : public Memory {
 public:
  /// Device memory, or managed memory, which the host reaches as well once the GPU is done.
  enum class Kind { device, managed };
  /// Of the current device.
  explicit DeviceMemory(Kind kind);
  ~DeviceMemory() override;

  Device device() const override { return {DeviceType::cuda, index_}; }
  cudaStream_t stream() const { return stream_.get(); }
  /// False for managed memory, which the host reads in place.
  bool is_device_only() const { return kind_ == Kind::device; }

  /// The tensor itself where it lies on the GPU, else a copy there.
  Tensor here(const Tensor& tensor);
  /// A copy of a few numbers of the host's, as [bytes] u8.
  template <class T>
  Tensor upload(std::span<const T> values) {
    return upload_bytes(values.data(), values.size_bytes());
  }
  /// Copies to the host, and waits for it.
  void download(const Tensor& from, void* to) const;
  /// The tensor itself where it lies on the host, else a copy there.
  Tensor on_host(const Tensor& tensor) const;

  // In the order of the stream:
  void fill(const Tensor& tensor, double value) const;
  /// The same values in another floating-point type.
  Tensor converted(const Tensor& tensor, DType type);

 protected:
  std::byte* acquire(std::size_t bytes) override;
  void release(std::byte* block, std::size_t bytes) override;

 private:
  Tensor upload_bytes(const void* from, std::size_t bytes);
  [[noreturn]] void refuse(std::size_t bytes) const;
  Kind kind_;
  int index_ = 0;
  std::size_t missed_ = 0;  // what there was no memory for in the last call of acquire()
  Stream stream_;
  Staging staging_;
};

}  // namespace bireme::cuda
