#include <algorithm>
#include <cstring>
#include <type_traits>

#include "core/tensor/host_blocks.h"
#include "core/tensor/tensor.h"

namespace bireme {

namespace {

/// Calls f with the numbers of a tensor, by their own type.
template <class F>
void visit_numbers(const Tensor& tensor, F&& f) {
  switch (tensor.dtype()) {
    case DType::f32: f(tensor.data<float>()); return;
    case DType::bf16: f(tensor.data<bf16>()); return;
    case DType::f64: f(tensor.data<double>()); return;
    case DType::i32: f(tensor.data<std::int32_t>()); return;
    case DType::i64: f(tensor.data<std::int64_t>()); return;
    case DType::u8: f(tensor.data<std::uint8_t>()); return;
  }
}

template <class T>
double widened(T x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_float(x);
  } else {
    return static_cast<double>(x);
  }
}

template <class T>
T narrowed(double x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(static_cast<float>(x));
  } else {
    return static_cast<T>(x);
  }
}

class HostMemory final : public Memory {
 public:
  ~HostMemory() override { release_cache(); }
  Device device() const override { return {}; }
  Memory& host() override { return *this; }

  void fill(const Tensor& tensor, double value) override {
    if (value == 0) {
      std::memset(tensor.raw(), 0, tensor.bytes());
      return;
    }
    visit_numbers(tensor,
                  [&]<class T>(T* numbers) { std::fill_n(numbers, tensor.elements(), narrowed<T>(value)); });
  }

  void copy(const Tensor& from, const Tensor& to) override {
    if (from.dtype() == to.dtype()) {
      std::memcpy(to.raw(), from.raw(), from.bytes());
      return;
    }
    constexpr std::int64_t kWorthThreads = 1 << 16;
    const std::int64_t count = from.elements();
    visit_numbers(from, [&]<class A>(const A* in) {
      visit_numbers(to, [&]<class B>(B* out) {
#pragma omp parallel for schedule(static) if (count > kWorthThreads)
        for (std::int64_t i = 0; i < count; ++i) out[i] = narrowed<B>(widened(in[i]));
      });
    });
  }

  void copy_rows(const RowPieces& pieces) override {
    for (std::int64_t r = 0; r < pieces.rows; ++r) {
      const auto row = static_cast<std::size_t>(r);
      std::memcpy(pieces.to + row * pieces.to_stride, pieces.from + row * pieces.from_stride, pieces.bytes);
    }
  }

  std::vector<Tensor> on_host(std::span<const Tensor> tensors) override {
    return {tensors.begin(), tensors.end()};
  }

 protected:
  std::byte* acquire(std::size_t bytes) override { return acquire_host_block(bytes); }
  void release(std::byte* block, std::size_t bytes) override { release_host_block(block, bytes); }
};

}  // namespace

std::shared_ptr<Memory> make_host_memory() { return std::make_shared<HostMemory>(); }

}  // namespace bireme
