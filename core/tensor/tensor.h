#pragma once

#include <cassert>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor/memory.h"
#include "core/tensor/types.h"

namespace bireme {

/// A contiguous, row-major, reference-counted array. Copies share memory. Views exist over leading dimensions
/// only, so a pointer and a shape always describe the whole tensor and kernels never meet strides.
class Tensor {
 public:
  Tensor() = default;
  /// Uninitialised memory.
  Tensor(Memory& memory, const Shape& shape, DType type);

  bool defined() const { return data_ != nullptr; }
  explicit operator bool() const { return defined(); }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return type_; }
  Device device() const { return defined() ? memory_->device() : Device{}; }
  /// Where it lies; as long as the tensor lives.
  Memory& memory() const { return *memory_; }
  bool is_on_host() const { return device().type == DeviceType::cpu; }
  std::int64_t elements() const { return shape_.elements(); }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * size_of(type_); }
  /// The last dimension, C, and the product of all others, R.
  std::int64_t channels() const { return shape_.rank() == 0 ? 1 : shape_.back(); }
  std::int64_t rows() const { return channels() == 0 ? 0 : elements() / channels(); }

  template <class T>
  T* data() const {
    assert(TypeOf<T>::value == type_);
    return reinterpret_cast<T*>(data_.get());
  }
  /// Host tensors only.
  template <class T>
  std::span<T> values() const {
    return {data<T>(), static_cast<std::size_t>(elements())};
  }
  std::byte* raw() const { return data_.get(); }

  /// Entries [begin, end) of the first dimension; shares memory.
  Tensor slice(std::int64_t begin, std::int64_t end) const;
  /// The same memory under another shape of as many elements.
  Tensor reshape(const Shape& shape) const;
  /// The n elements from `offset` on, as a view of the given shape.
  Tensor view(std::int64_t offset, const Shape& shape) const;
  /// True when another Tensor (of any view) shares this memory.
  bool shared() const { return data_.use_count() > 1; }

 private:
  std::shared_ptr<std::byte> data_;
  Shape shape_;
  DType type_ = DType::f32;
  Memory* memory_ = nullptr;  // kept alive by the block
};

// On a device these are queued behind its other work; the host waits only where values come to it.

/// Copies values, converting between floating-point types where they differ. Either tensor may lie on the
/// host.
void copy(const Tensor& from, const Tensor& to);
void fill(const Tensor& tensor, double value);
Tensor clone(Memory& memory, const Tensor& tensor);
Tensor convert(Memory& memory, const Tensor& tensor, DType type);
/// Of each row, `columns` entries: those from `from_column` on go where those from `to_column` on are. Equal
/// types, and tensors of one device.
struct ColumnPlaces {
  std::int64_t from_column = 0, to_column = 0, columns = 0;
};
void copy_columns(const Tensor& from, const Tensor& to, const ColumnPlaces& places);

/// The tensor itself where the host reads it in place, else a copy on the host.
Tensor on_host(const Tensor& tensor);
/// The same of several tensors of one device, behind a single wait.
std::vector<Tensor> on_host(std::span<const Tensor> tensors);
/// The tensor itself where it lies in memory of that device, else a copy there.
Tensor on_device(Memory& memory, const Tensor& tensor);

/// @throws Error (data) naming `what` and both shapes when they differ
void require_shape(const char* what, const Tensor& tensor, const Shape& expected);

}  // namespace bireme
