#include "core/data/shard.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/base/files.h"

namespace bireme {

namespace {

template <class T>
std::vector<T> read_list(const Hdf5Reader& reader, const char* name) {
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor values = reader.read(name, *memory);
  if (values.dtype() != TypeOf<T>::value) return {};  // its length then fails the check that follows
  return {values.values<T>().begin(), values.values<T>().end()};
}

}  // namespace

Shard::Shard(std::filesystem::path path, ShardEntry entry, std::int64_t first_record, std::int64_t classes)
    : path_(std::move(path)), entry_(std::move(entry)), first_record_(first_record), classes_(classes) {}

void Shard::fail(const std::string& what) const {
  throw Error(ErrorKind::data, what, path_.string(),
              "copy the shard again, or rebuild the dataset with `bireme prepare images`");
}

void Shard::check_place() const {
  std::error_code failure;
  const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(path_, failure));
  if (failure) fail(fmt::format("a shard of the dataset cannot be read ({})", failure.message()));
  if (bytes != entry_.bytes)
    fail(fmt::format("the shard has {} bytes, the manifest says {}", bytes, entry_.bytes));
  const Hdf5Reader reader(path_);
  if (!reader.has_attribute("", shard_names::complete)) fail("the shard was never finished");
  const std::int64_t records = reader.integer("", shard_names::records);
  if (records != entry_.records)
    fail(fmt::format("the shard has {} records, the manifest says {}", records, entry_.records));
  const std::int64_t first = reader.integer("", shard_names::first_record);
  if (first != first_record_)
    fail(fmt::format("the shard begins with record {}, the manifest says {}: it was copied over another",
                     first, first_record_));
}

std::optional<std::string> Shard::damage() const {
  const std::string actual = checksum_file(path_, ErrorKind::data);
  if (actual == entry_.checksum) return {};
  return fmt::format("checksum is {}, the manifest says {}", actual, entry_.checksum);
}

Hdf5Reader& Shard::opened() {
  if (!reader_) {
    if (const auto problem = verified_ ? std::nullopt : damage()) fail(*problem);
    auto reader = std::make_unique<Hdf5Reader>(path_);
    if (!verified_) load_index(*reader);
    verified_ = true;
    reader_ = std::move(reader);
  }
  return *reader_;
}

void Shard::load_index(const Hdf5Reader& reader) {
  offsets_ = read_list<std::int64_t>(reader, shard_names::offsets);
  sizes_ = read_list<std::int32_t>(reader, shard_names::sizes);
  labels_ = read_list<std::int32_t>(reader, shard_names::labels);
  codecs_ = read_list<std::uint8_t>(reader, shard_names::codec);
  const std::int64_t n = entry_.records;
  if (std::ssize(offsets_) != n + 1 || std::ssize(sizes_) != 3 * n || std::ssize(labels_) != n ||
      std::ssize(codecs_) != n)
    fail(fmt::format("the lists of the shard do not have {} entries", n));
  const Shape bytes = reader.shape(shard_names::bytes);
  if (bytes.rank() != 1 || offsets_.front() != 0 || offsets_.back() != bytes.front())
    fail("the records of the shard do not cover its bytes");
  for (std::int64_t i = 0; i < n; ++i) check_record(i);
}

void Shard::check_record(std::int64_t i) const {
  const std::int64_t bytes = offsets_[i + 1] - offsets_[i];
  const std::int64_t height = sizes_[3 * i], width = sizes_[3 * i + 1], channels = sizes_[3 * i + 2];
  const bool is_raw = codecs_[i] == static_cast<std::uint8_t>(Codec::raw);
  const char* problem = bytes <= 0                                               ? "has no bytes"
                        : height < 1 || width < 1 || height * width > kMaxPixels ? "has an impossible size"
                        : channels != 1 && channels != 3                         ? "is neither grey nor RGB"
                        : codecs_[i] > static_cast<std::uint8_t>(Codec::png)     ? "has an unknown codec"
                        : is_raw && bytes != height * width * channels ? "does not have the bytes of its size"
                        : labels_[i] < -1 || labels_[i] >= classes_    ? "has a label beyond the classes"
                                                                       : nullptr;
  if (problem != nullptr) fail(fmt::format("record {} {}", first_record_ + i, problem));
}

EncodedPicture Shard::read(std::int64_t i) {
  const Hdf5Reader& reader = opened();
  EncodedPicture picture{.codec = static_cast<Codec>(codecs_[i]),
                         .bytes = {},
                         .height = sizes_[3 * i],
                         .width = sizes_[3 * i + 1],
                         .channels = sizes_[3 * i + 2],
                         .label = labels_[i]};
  picture.bytes.resize(static_cast<std::size_t>(offsets_[i + 1] - offsets_[i]));
  reader.read_bytes(shard_names::bytes, offsets_[i], offsets_[i + 1], picture.bytes.data());
  return picture;
}

const std::vector<std::int32_t>& Shard::labels() {
  if (!verified_) opened();
  return labels_;
}

}  // namespace bireme
