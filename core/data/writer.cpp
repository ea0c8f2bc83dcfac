#include "core/data/writer.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/error.h"
#include "core/data/picture_shard.h"
#include "core/io/hdf5.h"

namespace bireme {

namespace {

constexpr std::int64_t kMaxShardBytes = 256 << 20;  // what the writer holds in memory

/// A chunk is what one read takes, checksum included: about one record, within what disks read in one go.
std::int64_t chunk_bytes(std::int64_t bytes, std::int64_t records) {
  const auto mean = static_cast<std::uint64_t>(std::max<std::int64_t>(bytes / records, 1));
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::bit_ceil(mean)), 16 << 10, 1 << 20);
}

/// The library may report success although the disk was full, so what was written is read back.
void read_back(const std::filesystem::path& path, const std::vector<std::uint8_t>& expected) {
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Hdf5Reader reader(path);
  const Tensor bytes = reader.read(shard_names::bytes, *memory);
  for (const char* name : {shard_names::offsets, shard_names::sizes, shard_names::codec, shard_names::labels})
    reader.read(name, *memory);
  if (bytes.bytes() != expected.size() || std::memcmp(bytes.raw(), expected.data(), expected.size()) != 0)
    throw Error(ErrorKind::checkpoint, "the shard does not read back as it was written", path.string(),
                "check the disk's space and health, then start again");
}

}  // namespace

DatasetWriter::DatasetWriter(Options options)
    : options_(std::move(options)),
      folder_({.output = options_.output, .shard_size = options_.shard_size, .replace = options_.replace}) {
  manifest_.kind = "images";
  manifest_.split = options_.split;
  manifest_.classes = options_.classes;
  manifest_.channels = 1;
}

void DatasetWriter::append(EncodedPicture picture) {
  if (records() == 0) {
    manifest_.width = picture.width;
    manifest_.height = picture.height;
  }
  uniform_ = uniform_ && picture.width == manifest_.width && picture.height == manifest_.height;
  manifest_.channels = std::max(manifest_.channels, picture.channels);
  bytes_.insert(bytes_.end(), picture.bytes.begin(), picture.bytes.end());
  offsets_.push_back(std::ssize(bytes_));
  sizes_.insert(sizes_.end(), {picture.height, picture.width, picture.channels});
  codecs_.push_back(static_cast<std::uint8_t>(picture.codec));
  labels_.push_back(picture.label);
  if (std::ssize(labels_) == options_.shard_size || std::ssize(bytes_) >= kMaxShardBytes) write_shard();
}

void DatasetWriter::write_shard() {
  const std::int64_t records = std::ssize(labels_), total = std::ssize(bytes_);
  const std::filesystem::path path = folder_.next_shard();
  const std::shared_ptr<Memory> memory = make_host_memory();

  Hdf5Writer writer(path, total + records * 32);  // a record's entries in the lists are 25 bytes
  writer.create(shard_names::bytes, DType::u8, {total}, chunk_bytes(total, records));
  writer.write_bytes(shard_names::bytes, 0, bytes_.data(), total);
  writer.write(shard_names::offsets, tensor_of(*memory, offsets_, {records + 1}));
  writer.write(shard_names::sizes, tensor_of(*memory, sizes_, {records, 3}));
  writer.write(shard_names::codec, tensor_of(*memory, codecs_, {records}));
  writer.write(shard_names::labels, tensor_of(*memory, labels_, {records}));
  folder_.finish_shard(writer, {.file = {}, .records = records, .bytes = 0, .checksum = {}}, manifest_);
  read_back(path, bytes_);
  bytes_.clear();
  offsets_.assign(1, 0);
  sizes_.clear();
  codecs_.clear();
  labels_.clear();
}

void DatasetWriter::finish(const std::vector<double>& pixel_mean, const std::vector<double>& pixel_std) {
  if (!labels_.empty()) write_shard();
  if (manifest_.records == 0)
    throw Error(ErrorKind::data, "no picture is left for the dataset", options_.output.string(),
                "give pictures that decode");
  if (!uniform_) manifest_.width = manifest_.height = 0;
  manifest_.pixel_mean = pixel_mean;
  manifest_.pixel_std = pixel_std;
  folder_.commit(to_json(manifest_));
}

}  // namespace bireme
