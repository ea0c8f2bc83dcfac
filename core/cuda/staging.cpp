#include "core/cuda/staging.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

namespace bireme::cuda {

namespace {

// Copies are cut so that the first piece is on its way while the next is still being staged.
constexpr std::size_t kLargestPiece = std::size_t{4} << 20, kSmallestBuffer = std::size_t{64} << 10;
// Of pinned memory, which no other program can have: about the pictures of a step of ViT-S/16 on one GPU.
constexpr std::size_t kMostPinned = std::size_t{256} << 20;
// Larger pieces go to the host by themselves: the driver stages them no slower.
constexpr std::size_t kArrivals = std::size_t{1} << 20;

}  // namespace

Pinned::Pinned(std::size_t bytes) {
  void* data = nullptr;
  cuda_check(cudaMallocHost(&data, bytes), "pin memory of the host");
  data_ = static_cast<std::byte*>(data);
}

Staging::Buffer& Staging::free_buffer(std::size_t bytes) {
  const std::size_t size = std::bit_ceil(std::max(bytes, kSmallestBuffer));
  std::deque<Buffer>& buffers = buffers_[size];
  const auto oldest_again = [&]() -> Buffer& {
    buffers.push_back(std::move(buffers.front()));
    buffers.pop_front();
    return buffers.back();
  };
  if (!buffers.empty()) {
    if (is_free(buffers.front())) return oldest_again();
    if (pinned_ + size > kMostPinned) {
      wait_for(buffers.front());
      return oldest_again();
    }
  }
  pinned_ += size;
  return buffers.emplace_back(Buffer{.memory = Pinned(size), .sent = make_event(), .run = nullptr});
}

bool Staging::is_free(const Buffer& buffer) {
  const cudaError_t reached = buffer.run ? buffer.run->query() : cudaEventQuery(buffer.sent.get());
  if (reached != cudaSuccess) cudaGetLastError();  // "not ready" is no failure
  return reached == cudaSuccess;
}

void Staging::wait_for(const Buffer& buffer) {
  if (!buffer.run) {
    cuda_check(cudaEventSynchronize(buffer.sent.get()), "wait for a copy to the GPU");
  } else if (buffer.run == graphs_.capturing()) {
    graphs_.outside([&] { buffer.run->wait(); });
  } else {
    buffer.run->wait();
  }
}

void Staging::upload(const void* from, std::byte* to, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  for (std::size_t begin = 0; begin < bytes; begin += kLargestPiece) {
    const std::size_t count = std::min(kLargestPiece, bytes - begin);
    Buffer& buffer = free_buffer(count);
    std::memcpy(buffer.memory.data(), static_cast<const std::byte*>(from) + begin, count);
    cuda_check(cudaMemcpyAsync(to + begin, buffer.memory.data(), count, cudaMemcpyHostToDevice, stream_),
               "copy to the GPU");
    buffer.run = graphs_.capturing();
    if (!buffer.run) cuda_check(cudaEventRecord(buffer.sent.get(), stream_), "mark the end of a copy");
  }
}

void Staging::download(std::span<const Piece> pieces) {
  if (std::all_of(pieces.begin(), pieces.end(), [](const Piece& piece) { return piece.bytes == 0; })) return;
  const std::lock_guard lock(mutex_);
  graphs_.outside([&] { land(pieces); });
}

void Staging::land(std::span<const Piece> pieces) {
  if (!arrivals_) arrivals_.emplace(kArrivals);
  std::vector<std::pair<Piece, const std::byte*>> arriving;  // and where in pinned memory
  std::size_t used = 0;
  const auto arrive = [&] {
    if (arriving.empty()) return;
    synchronize(stream_, "copy to the host");
    for (const auto& [piece, at] : arriving) std::memcpy(piece.to, at, piece.bytes);
    arriving.clear();
    used = 0;
  };
  for (const Piece& piece : pieces) {
    if (piece.bytes == 0) continue;
    const bool is_small = piece.bytes <= kArrivals;
    if (is_small && used + piece.bytes > kArrivals) arrive();
    std::byte* to = is_small ? arrivals_->data() + used : piece.to;
    cuda_check(cudaMemcpyAsync(to, piece.from, piece.bytes, cudaMemcpyDeviceToHost, stream_),
               "copy to the host");
    if (!is_small) {
      synchronize(stream_, "copy to the host");
      continue;
    }
    arriving.emplace_back(piece, to);
    used += piece.bytes;
  }
  arrive();
}

}  // namespace bireme::cuda
