#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/base/bf16.h"

namespace bireme {

enum class DType : std::uint8_t { f32, bf16, f64, i32, i64, u8 };

std::size_t size_of(DType type);
const char* to_string(DType type);

template <class T>
struct TypeOf;
template <>
struct TypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct TypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct TypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct TypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct TypeOf<std::int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct TypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};

enum class DeviceType : std::uint8_t { cpu, cuda };

/// Where memory lives: host memory, or the numbered GPU of this process's view of the machine.
struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

/// Sizes of up to six dimensions, outermost first. An empty shape is a scalar.
class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) {
    assert(sizes.size() <= kMaxRank);
    for (const std::int64_t size : sizes) sizes_[rank_++] = size;
  }
  template <class Iterator>
  Shape(Iterator begin, Iterator end) {
    for (; begin != end; ++begin) push_back(static_cast<std::int64_t>(*begin));
  }

  int rank() const { return rank_; }
  std::int64_t operator[](int dimension) const { return sizes_[index(dimension)]; }
  std::int64_t& operator[](int dimension) { return sizes_[index(dimension)]; }
  std::int64_t front() const { return sizes_[0]; }
  std::int64_t back() const { return sizes_[rank_ - 1]; }
  void push_back(std::int64_t size) {
    assert(rank_ < kMaxRank);
    sizes_[rank_++] = size;
  }
  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + rank_; }

  /// Number of elements: the product of all sizes, 1 for a scalar.
  std::int64_t elements() const {
    std::int64_t product = 1;
    for (const std::int64_t size : *this) product *= size;
    return product;
  }

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a.sizes_[i] != b.sizes_[i]) return false;
    return true;
  }

 private:
  int index(int dimension) const {
    const int i = dimension < 0 ? dimension + rank_ : dimension;
    assert(i >= 0 && i < rank_);
    return i;
  }
  std::array<std::int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

std::string to_string(const Shape& shape);

}  // namespace bireme
