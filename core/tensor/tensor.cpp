#include "core/tensor/tensor.h"

#include "core/base/error.h"

namespace bireme {

Tensor::Tensor(Memory& memory, const Shape& shape, DType type)
    : data_(memory.allocate(static_cast<std::size_t>(shape.elements()) * size_of(type))),
      shape_(shape),
      type_(type),
      memory_(&memory) {}

Tensor Tensor::view(std::int64_t offset, const Shape& shape) const {
  assert(offset >= 0 && offset + shape.elements() <= elements());
  Tensor result = *this;
  result.data_ =
      std::shared_ptr<std::byte>(data_, data_.get() + offset * static_cast<std::int64_t>(size_of(type_)));
  result.shape_ = shape;
  return result;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  assert(0 <= begin && begin <= end && end <= shape_.front());
  Shape shape = shape_;
  shape[0] = end - begin;
  return view(begin * (shape_.front() == 0 ? 0 : elements() / shape_.front()), shape);
}

Tensor Tensor::reshape(const Shape& shape) const {
  assert(shape.elements() == elements());
  Tensor result = *this;
  result.shape_ = shape;
  return result;
}

void copy(const Tensor& from, const Tensor& to) {
  assert(from.elements() == to.elements());
  if (from.raw() == to.raw() && from.dtype() == to.dtype()) return;
  (from.is_on_host() ? to : from).memory().copy(from, to);
}

void fill(const Tensor& tensor, double value) { tensor.memory().fill(tensor, value); }

void copy_columns(const Tensor& from, const Tensor& to, const ColumnPlaces& places) {
  if (places.columns == 0) return;
  assert(from.dtype() == to.dtype() && from.device() == to.device() && from.rows() == to.rows());
  assert(places.from_column + places.columns <= from.channels());
  assert(places.to_column + places.columns <= to.channels());
  const auto bytes = [&](std::int64_t columns) {
    return static_cast<std::size_t>(columns) * size_of(from.dtype());
  };
  from.memory().copy_rows({.from = from.raw() + bytes(places.from_column),
                           .to = to.raw() + bytes(places.to_column),
                           .from_stride = bytes(from.channels()),
                           .to_stride = bytes(to.channels()),
                           .bytes = bytes(places.columns),
                           .rows = from.rows()});
}

Tensor on_host(const Tensor& tensor) {
  return !tensor.defined() || tensor.is_on_host() ? tensor : tensor.memory().on_host({&tensor, 1}).front();
}

std::vector<Tensor> on_host(std::span<const Tensor> tensors) {
  return tensors.empty() ? std::vector<Tensor>() : tensors.front().memory().on_host(tensors);
}

Tensor on_device(Memory& memory, const Tensor& tensor) {
  return !tensor.defined() || tensor.device() == memory.device() ? tensor : clone(memory, tensor);
}

Tensor convert(Memory& memory, const Tensor& tensor, DType type) {
  Tensor result(memory, tensor.shape(), type);
  copy(tensor, result);
  return result;
}

Tensor clone(Memory& memory, const Tensor& tensor) { return convert(memory, tensor, tensor.dtype()); }

void require_shape(const char* what, const Tensor& tensor, const Shape& expected) {
  if (tensor.shape() == expected) return;
  throw Error(
      ErrorKind::data,
      std::string(what) + " has shape " + to_string(tensor.shape()) + ", expected " + to_string(expected), "",
      "check the sizes in the model's configuration");
}

}  // namespace bireme
