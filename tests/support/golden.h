#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/io/hdf5.h"

namespace bireme::test {

std::filesystem::path golden_folder();  // tests/golden

/// Reference values from tests/golden/<relative_path>, such as "vision/head.h5". Floats keep their precision:
/// f64 stays f64, f32 stays f32. Whatever is missing throws an Error that names the file and the path within
/// it.
class Golden {
 public:
  explicit Golden(const std::string& relative_path);

  Tensor tensor(const std::string& path) const { return reader_.read(path, *memory_); }
  bool has(const std::string& path) const { return reader_.has(path); }
  double number(const std::string& path, const std::string& attribute) const {
    return reader_.number(path, attribute);
  }
  std::vector<double> numbers(const std::string& path, const std::string& attribute) const {
    return reader_.numbers(path, attribute);
  }
  /// The numbers of a tensor of f64, f32 or i32.
  std::vector<double> numbers(const std::string& path) const;
  double number(const std::string& path) const { return numbers(path).at(0); }
  std::string text(const std::string& path, const std::string& attribute) const {
    return reader_.text(path, attribute);
  }
  std::vector<std::string> texts(const std::string& path, const std::string& attribute) const {
    return reader_.texts(path, attribute);
  }
  std::vector<std::string> members(const std::string& group) const { return reader_.members(group); }
  const Hdf5Reader& reader() const { return reader_; }
  Memory& memory() const { return *memory_; }

 private:
  std::shared_ptr<Memory> memory_;
  Hdf5Reader reader_;
};

}  // namespace bireme::test
