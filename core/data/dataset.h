#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/data/manifest.h"
#include "core/image/decode.h"

namespace bireme {

/// A folder of pictures made by `bireme prepare images`: dataset.json and shards in HDF5. Record i is the
/// same picture for everyone who opens the folder. All methods are thread-safe; one reader at a time gets to
/// the disk.
class Dataset {
 public:
  /// Opens the folder and checks what is cheap to check for all shards, so that a missing or mixed-up file is
  /// found now and not after hours: every shard is there, whole, listed once, in its place, and no shard is
  /// left out.
  /// @throws Error (data) naming the shard, or the `prepare` to run for a dataset of another kind
  static Dataset open(const std::filesystem::path& folder);

  Dataset(Dataset&&) noexcept;
  Dataset& operator=(Dataset&&) noexcept;
  ~Dataset();

  const std::filesystem::path& folder() const;
  const ImageManifest& manifest() const;
  std::int64_t records() const { return manifest().records; }
  /// Changes whenever any record changes; a checkpoint keeps it to notice that its data did.
  const std::string& fingerprint() const;

  /// The labels of all records, -1 where unknown.
  std::vector<std::int32_t> labels() const;
  /// The checksum of a shard is compared when it is first read from. @throws Error (data) naming shard,
  /// record, remedy
  EncodedPicture read(std::int64_t record) const;
  /// The same for many, in the order asked for; reads in the order on the disk.
  std::vector<EncodedPicture> read_many(std::span<const std::int64_t> records) const;
  /// Where a record lies, for messages: `FOLDER/shard-00002.h5, record 4711`.
  std::string place(std::int64_t record) const;

  /// Compares the checksum of every shard. Returns one line for each that is damaged.
  std::vector<std::string> verify(
      const std::function<void(std::int64_t done, std::int64_t total)>& progress = {}) const;

 private:
  struct Implementation;
  explicit Dataset(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

/// What `bireme inspect` prints: a few lines on contents, sizes, classes and shards.
std::string describe(const Dataset& dataset);

}  // namespace bireme
