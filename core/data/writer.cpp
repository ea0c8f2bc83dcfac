#include "core/data/writer.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/error.h"
#include "core/data/shard.h"
#include "core/io/hdf5.h"

namespace bireme {

namespace {

constexpr std::int64_t kMaxShardBytes = 256 << 20;  // what the writer holds in memory

/// A chunk is what one read takes, checksum included: about one record, within what disks read in one go.
std::int64_t chunk_bytes(std::int64_t bytes, std::int64_t records) {
  const auto mean = static_cast<std::uint64_t>(std::max<std::int64_t>(bytes / records, 1));
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::bit_ceil(mean)), 16 << 10, 1 << 20);
}

template <class T>
Tensor as_tensor(Memory& memory, const std::vector<T>& values, const Shape& shape) {
  Tensor tensor(memory, shape, TypeOf<T>::value);
  std::memcpy(tensor.raw(), values.data(), values.size() * sizeof(T));
  return tensor;
}

DatasetWriter::Options checked(DatasetWriter::Options options) {
  namespace fs = std::filesystem;
  const auto refuse = [&](const std::string& what, const std::string& remedy) {
    throw Error(ErrorKind::usage, what, options.output.string(), remedy);
  };
  if (options.shard_size < 1) refuse("--shard-size is not positive", "choose 1 or more records");
  if (!options.output.has_filename()) options.output = options.output.parent_path();  // "name/" is "name"
  if (!fs::exists(options.output)) return options;
  if (!fs::is_directory(options.output)) refuse("the output is a file", "give the name of a new folder");
  if (fs::is_empty(options.output)) return options;
  // Only ever a dataset is deleted, whatever the command line says.
  if (!fs::exists(options.output / DatasetManifest::kFile))
    refuse("the output folder holds other files", "give the name of a new folder");
  if (!options.replace)
    refuse("the output folder holds a dataset already", "choose another name, or replace it with --force");
  return options;
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
    : options_(checked(std::move(options))), folder_(options_.output) {
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
  const std::string name = fmt::format("shard-{:05}.h5", manifest_.shards.size());
  const std::filesystem::path path = folder_.path() / name;
  const std::shared_ptr<Memory> memory = make_host_memory();

  Hdf5Writer writer(path, total + records * 32);  // a record's entries in the lists are 25 bytes
  writer.create(shard_names::bytes, DType::u8, {total}, chunk_bytes(total, records));
  writer.write_bytes(shard_names::bytes, 0, bytes_.data(), total);
  writer.write(shard_names::offsets, as_tensor(*memory, offsets_, {records + 1}));
  writer.write(shard_names::sizes, as_tensor(*memory, sizes_, {records, 3}));
  writer.write(shard_names::codec, as_tensor(*memory, codecs_, {records}));
  writer.write(shard_names::labels, as_tensor(*memory, labels_, {records}));
  writer.attribute("", shard_names::records, records);
  writer.attribute("", shard_names::first_record, manifest_.records);
  writer.close();
  read_back(path, bytes_);

  manifest_.shards.push_back({.file = name,
                              .records = records,
                              .bytes = static_cast<std::int64_t>(std::filesystem::file_size(path)),
                              .checksum = checksum_file(path)});
  manifest_.records += records;
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
  write_file_atomically(folder_.path() / DatasetManifest::kFile, to_json(manifest_));
  folder_.commit();
}

}  // namespace bireme
