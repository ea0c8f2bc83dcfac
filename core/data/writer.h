#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/data/staged_dataset.h"
#include "core/image/decode.h"

namespace bireme {

/// Writes a dataset of pictures: shards with a checksum each, the manifest last. The folder appears under its
/// name when it is whole; a failure on the way, a full disk included, leaves nothing behind.
class DatasetWriter {
 public:
  struct Options {
    std::filesystem::path output;
    std::string split = "train";
    std::vector<std::string> classes;
    std::int64_t shard_size = 16384;  ///< records of a shard; one that reaches 256 MiB is closed before
    bool replace = false;             ///< a dataset that stands at `output` makes way
  };

  /// @throws Error (usage) when `output` holds something and may not be replaced, or is not a dataset
  explicit DatasetWriter(Options options);

  /// Adds a record. The picture must be one that decodes.
  void append(EncodedPicture picture);
  /// Writes what is left and puts the folder in its place. @throws Error (data) when there is no record
  void finish(const std::vector<double>& pixel_mean, const std::vector<double>& pixel_std);

  std::int64_t records() const { return manifest_.records + std::ssize(labels_); }
  /// 1 while all pictures are grey, else 3.
  int channels() const { return manifest_.channels; }

 private:
  void write_shard();

  Options options_;
  StagedDataset folder_;
  ImageManifest manifest_;
  bool uniform_ = true;  // all pictures so far have one size
  // The records of the shard at hand.
  std::vector<std::uint8_t> bytes_, codecs_;
  std::vector<std::int64_t> offsets_{0};
  std::vector<std::int32_t> sizes_, labels_;
};

}  // namespace bireme
