#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/io/safetensors.h"

namespace bireme {

/// A file in which some tensors lie as consecutive rows of one, shown as if each stood for itself.
class SplitSource final : public TensorSource {
 public:
  /// One of the tensors that a fused one holds.
  struct Piece {
    std::string name;
    std::int64_t rows = 0;
  };
  /// @param source  outlives this
  explicit SplitSource(const TensorSource& source) : source_(source) {}

  /// From here on `fused` is gone, and the pieces are there instead. Nothing happens where there is no such
  /// tensor. @throws Error (checkpoint) when its rows are not those of the pieces together
  void split(const std::string& fused, const std::vector<Piece>& pieces, const std::string& where);

  bool contains(std::string_view name) const override;
  const SafetensorsEntry& entry(std::string_view name) const override;
  std::vector<std::string> names() const override;
  void read_bytes(std::string_view name, std::int64_t offset, std::span<std::byte> into) const override;

 private:
  struct Part {
    std::string fused;
    std::int64_t offset = 0;  // in bytes
    SafetensorsEntry entry;
  };
  const TensorSource& source_;
  std::map<std::string, Part, std::less<>> parts_;
  std::vector<std::string> gone_;
};

}  // namespace bireme
