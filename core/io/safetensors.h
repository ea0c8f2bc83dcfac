#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/autograd/partition.h"
#include "core/base/files.h"
#include "core/io/safetensors_header.h"
#include "core/tensor/tensor.h"

namespace bireme {

/// Where tensors are read from by name: one safetensors file, or a folder of shards. Reads only the bytes
/// asked for, into host memory. Thread-safe.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual bool contains(std::string_view name) const = 0;
  /// @throws Error (checkpoint) with the nearest name when there is no such tensor
  virtual const SafetensorsEntry& entry(std::string_view name) const = 0;
  /// All names, sorted.
  virtual std::vector<std::string> names() const = 0;

  /// The whole tensor; F16 widened to fp32. @throws Error (checkpoint) for types without a counterpart here
  Tensor read(std::string_view name, Memory& memory) const;
  /// Entries [begin, end) of the first dimension.
  Tensor read_rows(std::string_view name, std::int64_t begin, std::int64_t end, Memory& memory) const;
  /// A rank's part of the tensor. Reads the rows it touches and no more than 16 MiB at a time beside the
  /// result.
  Tensor read_part(std::string_view name, const Partition& partition, Memory& memory) const;

  /// Fills `into` with the bytes of the named tensor as they are stored, from `offset` within it.
  virtual void read_bytes(std::string_view name, std::int64_t offset, std::span<std::byte> into) const = 0;

 private:
  void read_rows_into(std::string_view name, std::int64_t begin, const Tensor& into) const;
};

/// A safetensors file with its header checked (see parse_safetensors_header).
class SafetensorsFile final : public TensorSource {
 public:
  /// @throws Error (checkpoint) when the file cannot be read or is not valid
  static SafetensorsFile open(const std::filesystem::path& path);

  bool contains(std::string_view name) const override;
  const SafetensorsEntry& entry(std::string_view name) const override;
  std::vector<std::string> names() const override;

  const std::map<std::string, SafetensorsEntry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::filesystem::path& path() const { return file_.path(); }
  void read_bytes(std::string_view name, std::int64_t offset, std::span<std::byte> into) const override;

 private:
  explicit SafetensorsFile(InputFile file) : file_(std::move(file)) {}

  InputFile file_;
  SafetensorsHeader header_;
  std::int64_t data_start_ = 0;
};

/// The tensors of a published folder: `NAME.safetensors`, or the shards that `NAME.safetensors.index.json`
/// lists. An index may only name regular files of its own folder (or, through links, of the blob store of a
/// Hugging Face cache).
class SafetensorsFolder final : public TensorSource {
 public:
  /// @throws Error (checkpoint) when there is neither file, when a file is not valid, when a tensor of the
  /// index is missing
  ///         from its shard, and when one is in two shards
  static SafetensorsFolder open(const std::filesystem::path& folder, const std::string& name = "model");

  bool contains(std::string_view name) const override;
  const SafetensorsEntry& entry(std::string_view name) const override;
  std::vector<std::string> names() const override;
  const std::vector<SafetensorsFile>& files() const { return files_; }
  void read_bytes(std::string_view name, std::int64_t offset, std::span<std::byte> into) const override;

 private:
  const SafetensorsFile& file_of(std::string_view name) const;

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t, std::less<>> places_;  // name → index into files_
};

/// Position of the first NaN or infinity of a host tensor; nothing when all is finite, as integers always
/// are.
std::optional<std::int64_t> first_non_finite(const Tensor& tensor);

}  // namespace bireme
