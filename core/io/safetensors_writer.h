#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/base/files.h"
#include "core/tensor/tensor.h"

namespace bireme {

struct SafetensorsDeclaration {
  std::string name;
  DType type = DType::f32;
  Shape shape;
};

/// Writes a file tensor by tensor, so that no more than one has to be in memory. The header comes first; data
/// starts at a multiple of 8 bytes and every tensor at a multiple of its element's size.
class SafetensorsWriter {
 public:
  /// @throws Error (checkpoint) when the file cannot be written
  SafetensorsWriter(const std::filesystem::path& path, std::vector<SafetensorsDeclaration> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  /// Falling size of elements, which keeps all aligned, else the order given.
  static std::vector<SafetensorsDeclaration> layout(std::vector<SafetensorsDeclaration> tensors);
  /// layout() of the tensors: the order in which write() must be called.
  const std::vector<SafetensorsDeclaration>& order() const { return order_; }
  /// Appends the next tensor of order(): a host tensor of the declared shape and type.
  void write(const Tensor& tensor);
  /// Flushes to the disk and closes, after all tensors were written.
  FileRecord finish();

 private:
  std::vector<SafetensorsDeclaration> order_;
  std::size_t next_ = 0;
  OutputFile file_;
};

/// Writes tensors that are all in memory.
FileRecord write_safetensors(const std::filesystem::path& path,
                             const std::vector<std::pair<std::string, Tensor>>& tensors,
                             const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace bireme
