#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/data/manifest.h"
#include "core/image/decode.h"
#include "core/io/hdf5.h"

namespace bireme {

// Names in a shard. Datasets: the bytes of all records one after the other; where each begins (and, last,
// where all end); height, width, channels; how to decode; label. Attributes of the root: records,
// first_record, complete.
namespace shard_names {
inline constexpr const char *bytes = "bytes", *offsets = "offsets", *sizes = "sizes", *codec = "codec",
                            *labels = "labels";
inline constexpr const char *records = "records", *first_record = "first_record", *complete = "complete";
}  // namespace shard_names

/// One HDF5 file of pictures, checked when it is first used and closed again when many others are.
class Shard {
 public:
  Shard(std::filesystem::path path, ShardEntry entry, std::int64_t first_record, std::int64_t classes);

  /// Length, completeness, and its place among the shards; does not read the records. @throws Error (data)
  void check_place() const;
  /// What is wrong with its contents, or nothing. Reads the whole file.
  std::optional<std::string> damage() const;

  /// Record `index` of this shard. Opens and verifies the shard first where that has not been done.
  EncodedPicture read(std::int64_t index);
  const std::vector<std::int32_t>& labels();
  bool is_open() const { return reader_ != nullptr; }
  /// Closes the file; what was learnt about it is kept.
  void close() { reader_.reset(); }

  const std::filesystem::path& path() const { return path_; }
  std::int64_t first_record() const { return first_record_; }
  std::int64_t records() const { return entry_.records; }

 private:
  [[noreturn]] void fail(const std::string& what) const;
  Hdf5Reader& opened();
  void load_index(const Hdf5Reader& reader);
  void check_record(std::int64_t index) const;

  std::filesystem::path path_;
  ShardEntry entry_;
  std::int64_t first_record_, classes_;
  std::unique_ptr<Hdf5Reader> reader_;
  bool verified_ = false;
  std::vector<std::int64_t> offsets_;  // [n + 1]
  std::vector<std::int32_t> sizes_;    // [n, 3]
  std::vector<std::int32_t> labels_;   // [n]
  std::vector<std::uint8_t> codecs_;   // [n]
};

}  // namespace bireme
