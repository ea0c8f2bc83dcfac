#include "core/data/shard_file.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/base/files.h"

namespace bireme {

ShardFile::ShardFile(std::filesystem::path path, ShardEntry entry, std::int64_t first_record,
                     std::string kind)
    : path_(std::move(path)), entry_(std::move(entry)), first_record_(first_record), kind_(std::move(kind)) {}

void ShardFile::fail(const std::string& what) const {
  throw Error(ErrorKind::data, what, path_.string(),
              fmt::format("copy the shard again, or rebuild the dataset with `bireme prepare {}`",
                          kind_ == "tokens" ? "text" : kind_));
}

Hdf5Reader ShardFile::check_place() const {
  std::error_code failure;
  const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(path_, failure));
  if (failure) fail(fmt::format("a shard of the dataset cannot be read ({})", failure.message()));
  if (bytes != entry_.bytes)
    fail(fmt::format("the shard has {} bytes, the manifest says {}", bytes, entry_.bytes));
  Hdf5Reader reader(path_);
  if (!reader.has_attribute("", shard_names::complete)) fail("the shard was never finished");
  const std::int64_t records = reader.integer("", shard_names::records);
  if (records != entry_.records)
    fail(fmt::format("the shard has {} records, the manifest says {}", records, entry_.records));
  const std::int64_t first = reader.integer("", shard_names::first_record);
  if (first != first_record_)
    fail(fmt::format("the shard begins with record {}, the manifest says {}: it was copied over another",
                     first, first_record_));
  return reader;
}

std::optional<std::string> ShardFile::damage() const {
  const std::string actual = checksum_file(path_, ErrorKind::data);
  if (actual == entry_.checksum) return {};
  return fmt::format("checksum is {}, the manifest says {}", actual, entry_.checksum);
}

Hdf5Reader& ShardFile::opened(const std::function<void(const Hdf5Reader&)>& load_index) {
  if (!reader_) {
    if (const auto problem = verified_ ? std::nullopt : damage()) fail(*problem);
    auto reader = std::make_unique<Hdf5Reader>(path_);
    if (!verified_) load_index(*reader);
    verified_ = true;
    reader_ = std::move(reader);
  }
  return *reader_;
}

}  // namespace bireme
