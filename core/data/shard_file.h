#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/data/manifest.h"
#include "core/io/hdf5.h"

namespace bireme {

// Attributes of the root of every shard.
namespace shard_names {
inline constexpr const char *records = "records", *first_record = "first_record", *complete = "complete";
}  // namespace shard_names

/// One HDF5 file of a dataset, whatever its records are: checked when it is first used, and closed again when
/// many others are.
class ShardFile {
 public:
  /// @param kind  of the dataset, for messages
  ShardFile(std::filesystem::path path, ShardEntry entry, std::int64_t first_record, std::string kind);

  /// Length, completeness, and its place among the shards; does not read the records. Returns the file, open.
  /// @throws Error (data)
  Hdf5Reader check_place() const;
  /// What is wrong with its contents, or nothing. Reads the whole file.
  std::optional<std::string> damage() const;

  /// The file, open. The first time its checksum is compared, and `load_index` reads what is kept in memory.
  Hdf5Reader& opened(const std::function<void(const Hdf5Reader&)>& load_index);
  bool is_open() const { return reader_ != nullptr; }
  bool is_verified() const { return verified_; }
  /// What was learnt about it is kept.
  void close() { reader_.reset(); }
  [[noreturn]] void fail(const std::string& what) const;

  const std::filesystem::path& path() const { return path_; }
  const ShardEntry& entry() const { return entry_; }
  std::int64_t first_record() const { return first_record_; }
  std::int64_t records() const { return entry_.records; }

 private:
  std::filesystem::path path_;
  ShardEntry entry_;
  std::int64_t first_record_;
  std::string kind_;
  std::unique_ptr<Hdf5Reader> reader_;
  bool verified_ = false;
};

/// All of a dataset of numbers; empty when it is of another type, so that the check of its length fails.
template <class T>
std::vector<T> read_shard_list(const Hdf5Reader& reader, const char* name) {
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor values = reader.read(name, *memory);
  if (values.dtype() != TypeOf<T>::value) return {};
  return {values.values<T>().begin(), values.values<T>().end()};
}

}  // namespace bireme
