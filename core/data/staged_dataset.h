#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/files.h"
#include "core/data/manifest.h"
#include "core/io/hdf5.h"

namespace bireme {

/// A dataset's folder while it is written, whatever it holds: shards with a checksum each, the manifest last.
/// It appears under its name when it is whole; a failure on the way, a full disk included, leaves nothing
/// behind.
class StagedDataset {
 public:
  struct Options {
    std::filesystem::path output;
    std::int64_t shard_size = 1;
    bool replace = false;  ///< a dataset that stands at `output` makes way
  };
  /// @throws Error (usage) when `output` holds something and may not be replaced, or is not a dataset
  explicit StagedDataset(Options options);

  /// Where files beside the shards go.
  const std::filesystem::path& path() const { return folder_.path(); }
  /// The file that the next shard is to be written to.
  std::filesystem::path next_shard() const;
  /// Gives the shard its place among the others, closes it, and adds it to the manifest.
  /// @param entry  its counts; the rest is filled in
  void finish_shard(Hdf5Writer& writer, ShardEntry entry, DatasetManifest& manifest);
  /// Writes the manifest and puts the folder in its place.
  void commit(const std::string& manifest);

 private:
  Options options_;
  StagedFolder folder_;
  std::int64_t shards_ = 0;
};

template <class T>
Tensor tensor_of(Memory& memory, const std::vector<T>& values, const Shape& shape) {
  Tensor tensor(memory, shape, TypeOf<T>::value);
  std::memcpy(tensor.raw(), values.data(), values.size() * sizeof(T));
  return tensor;
}

}  // namespace bireme
