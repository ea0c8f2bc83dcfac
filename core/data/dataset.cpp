#include "core/data/dataset.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <mutex>
#include <numeric>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/dataset_folder.h"
#include "core/data/picture_shard.h"

namespace bireme {

struct Dataset::Implementation {
  std::filesystem::path folder;
  ImageManifest manifest;
  std::string fingerprint;
  std::mutex mutex;
  ShardList<PictureShard> shards;

  std::size_t shard_of(std::int64_t record) const {
    if (record < 0 || record >= manifest.records)
      throw Error(
          ErrorKind::data, fmt::format("there is no record {}, the dataset has {}", record, manifest.records),
          folder.string(), "the dataset is another one than before; use the one that the run began with");
    return shards.index_of(record);
  }

  EncodedPicture read(std::int64_t record) {
    return shards.with(shard_of(record),
                       [&](PictureShard& shard) { return shard.read(record - shard.first()); });
  }
};

Dataset::Dataset(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;
Dataset::~Dataset() = default;

Dataset Dataset::open(const std::filesystem::path& folder) {
  const std::string text = read_manifest_text(folder, "bireme prepare images");
  auto self = std::make_unique<Implementation>();
  self->folder = folder;
  self->manifest = parse_image_manifest(text, (folder / DatasetManifest::kFile).string());
  self->fingerprint = checksum_bytes(text);
  refuse_unlisted_shards(folder, self->manifest);
  std::int64_t first = 0;
  for (const ShardEntry& entry : self->manifest.shards) {
    PictureShard shard(folder / entry.file, entry, first, std::ssize(self->manifest.classes));
    shard.check_place();
    self->shards.add(std::move(shard));
    first += entry.records;
  }
  return Dataset(std::move(self));
}

const std::filesystem::path& Dataset::folder() const { return implementation_->folder; }
const ImageManifest& Dataset::manifest() const { return implementation_->manifest; }
const std::string& Dataset::fingerprint() const { return implementation_->fingerprint; }

std::vector<std::int32_t> Dataset::labels() const {
  const std::lock_guard lock(implementation_->mutex);
  std::vector<std::int32_t> labels;
  labels.reserve(static_cast<std::size_t>(records()));
  for (PictureShard& shard : implementation_->shards.shards()) {
    const bool was_open = shard.file().is_open();
    labels.insert(labels.end(), shard.labels().begin(), shard.labels().end());
    if (!was_open) shard.file().close();
  }
  return labels;
}

EncodedPicture Dataset::read(std::int64_t record) const {
  const std::lock_guard lock(implementation_->mutex);
  return implementation_->read(record);
}

std::vector<EncodedPicture> Dataset::read_many(std::span<const std::int64_t> records) const {
  std::vector<std::size_t> order(records.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return records[a] < records[b]; });
  std::vector<EncodedPicture> pictures(records.size());
  const std::lock_guard lock(implementation_->mutex);
  for (const std::size_t i : order) pictures[i] = implementation_->read(records[i]);
  return pictures;
}

std::string Dataset::place(std::int64_t record) const {
  const std::size_t shard = implementation_->shard_of(record);
  return fmt::format("{}, record {}", implementation_->shards.shards()[shard].file().path().string(), record);
}

std::vector<std::string> Dataset::verify(
    const std::function<void(std::int64_t, std::int64_t)>& progress) const {
  return implementation_->shards.verify(progress);
}

std::string describe(const Dataset& dataset) {
  const ImageManifest& manifest = dataset.manifest();
  std::int64_t bytes = 0;
  for (const ShardEntry& shard : manifest.shards) bytes += shard.bytes;
  std::string text =
      fmt::format("dataset of images, split `{}`: {}\n", manifest.split, dataset.folder().string());
  text += fmt::format("  records   {} in {} shards, {}\n", manifest.records, manifest.shards.size(),
                      readable_bytes(bytes));
  text += manifest.width > 0 ? fmt::format("  pictures  {} x {} pixels", manifest.width, manifest.height)
                             : std::string("  pictures  of different sizes");
  text += manifest.channels == 1 ? ", grey\n" : ", RGB\n";
  text += fmt::format("  pixels    mean {:.4f}, standard deviation {:.4f}\n",
                      fmt::join(manifest.pixel_mean, " "), fmt::join(manifest.pixel_std, " "));
  if (manifest.classes.empty()) return text + "  classes   none: the pictures have no labels\n";
  const std::size_t shown = std::min<std::size_t>(manifest.classes.size(), 10);
  return text + fmt::format("  classes   {}: {}{}\n", manifest.classes.size(),
                            fmt::join(manifest.classes.begin(),
                                      manifest.classes.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                            shown < manifest.classes.size() ? ", …" : "");
}

}  // namespace bireme
