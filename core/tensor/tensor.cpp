#include "core/tensor/tensor.h"

#include <cstring>

#include "core/base/error.h"

namespace bireme {

Tensor::Tensor(Memory& memory, const Shape& shape, DType type)
    : data_(memory.allocate(static_cast<std::size_t>(shape.elements()) * size_of(type))),
      shape_(shape),
      type_(type),
      device_(memory.device()) {}

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

namespace {

double read_as_double(const Tensor& tensor, std::int64_t i) {
  switch (tensor.dtype()) {
    case DType::f32: return tensor.data<float>()[i];
    case DType::bf16: return to_float(tensor.data<bf16>()[i]);
    case DType::f64: return tensor.data<double>()[i];
    case DType::i32: return tensor.data<std::int32_t>()[i];
    case DType::i64: return static_cast<double>(tensor.data<std::int64_t>()[i]);
    case DType::u8: return tensor.data<std::uint8_t>()[i];
  }
  return 0;
}

void write_double(const Tensor& tensor, std::int64_t i, double value) {
  switch (tensor.dtype()) {
    case DType::f32: tensor.data<float>()[i] = static_cast<float>(value); break;
    case DType::bf16: tensor.data<bf16>()[i] = to_bf16(static_cast<float>(value)); break;
    case DType::f64: tensor.data<double>()[i] = value; break;
    case DType::i32: tensor.data<std::int32_t>()[i] = static_cast<std::int32_t>(value); break;
    case DType::i64: tensor.data<std::int64_t>()[i] = static_cast<std::int64_t>(value); break;
    case DType::u8: tensor.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(value); break;
  }
}

}  // namespace

void copy(const Tensor& from, const Tensor& to) {
  assert(from.elements() == to.elements());
  if (from.dtype() == to.dtype()) {
    std::memcpy(to.raw(), from.raw(), from.bytes());
    return;
  }
  for (std::int64_t i = 0; i < from.elements(); ++i) write_double(to, i, read_as_double(from, i));
}

void fill(const Tensor& tensor, double value) {
  if (value == 0) {
    std::memset(tensor.raw(), 0, tensor.bytes());
    return;
  }
  for (std::int64_t i = 0; i < tensor.elements(); ++i) write_double(tensor, i, value);
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
