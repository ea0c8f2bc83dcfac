#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/data/shard_file.h"
#include "core/image/decode.h"

namespace bireme {

// Names in a shard of pictures, beside those of every shard: the bytes of all records one after the other;
// where each begins (and, last, where all end); height, width, channels; how to decode; label.
namespace shard_names {
inline constexpr const char *bytes = "bytes", *offsets = "offsets", *sizes = "sizes", *codec = "codec",
                            *labels = "labels";
}  // namespace shard_names

/// One file of pictures.
class PictureShard {
 public:
  PictureShard(std::filesystem::path path, ShardEntry entry, std::int64_t first_record, std::int64_t classes);

  void check_place() const { file_.check_place(); }
  ShardFile& file() { return file_; }
  const ShardFile& file() const { return file_; }
  std::int64_t first() const { return file_.first_record(); }

  /// Record `index` of this shard.
  EncodedPicture read(std::int64_t index);
  const std::vector<std::int32_t>& labels();

 private:
  Hdf5Reader& opened() {
    return file_.opened([this](const Hdf5Reader& reader) { load_index(reader); });
  }
  void load_index(const Hdf5Reader& reader);
  void check_record(std::int64_t index) const;

  ShardFile file_;
  std::int64_t classes_;
  std::vector<std::int64_t> offsets_;  // [n + 1]
  std::vector<std::int32_t> sizes_;    // [n, 3]
  std::vector<std::int32_t> labels_;   // [n]
  std::vector<std::uint8_t> codecs_;   // [n]
};

}  // namespace bireme
