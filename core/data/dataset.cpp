#include "core/data/dataset.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <deque>
#include <mutex>
#include <numeric>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/data/shard.h"

namespace bireme {

namespace {

constexpr std::int64_t kMaxManifestBytes = 64 << 20;
constexpr std::size_t kMaxOpenShards = 64;  // each holds a file descriptor and up to 1 MiB of chunks

std::string read_manifest_text(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / DatasetManifest::kFile;
  if (!std::filesystem::exists(path))
    throw Error(
        ErrorKind::data,
        std::filesystem::exists(folder) ? "the folder holds no dataset.json" : "there is no such dataset",
        folder.string(), "give a folder made by `bireme prepare images`");
  return read_file(path, kMaxManifestBytes, ErrorKind::data);
}

/// A shard file that the manifest does not know is a sign that the manifest is an older one.
void refuse_unlisted_shards(const std::filesystem::path& folder, const DatasetManifest& manifest) {
  std::set<std::string> listed;
  for (const ShardEntry& shard : manifest.shards) listed.insert(shard.file);
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("shard-") && name.ends_with(".h5") && !listed.contains(name))
      throw Error(ErrorKind::data, "the shard is not listed in dataset.json", entry.path().string(),
                  "copy dataset.json again, or rebuild the dataset with `bireme prepare images`");
  }
}

}  // namespace

struct Dataset::Implementation {
  std::filesystem::path folder;
  DatasetManifest manifest;
  std::string fingerprint;
  std::mutex mutex;
  std::vector<Shard> shards;
  std::deque<std::size_t> open_shards;  // oldest first

  std::size_t shard_of(std::int64_t record) const {
    if (record < 0 || record >= manifest.records)
      throw Error(
          ErrorKind::data, fmt::format("there is no record {}, the dataset has {}", record, manifest.records),
          folder.string(), "the dataset is another one than before; use the one that the run began with");
    const auto after = std::upper_bound(
        shards.begin(), shards.end(), record,
        [](std::int64_t wanted, const Shard& shard) { return wanted < shard.first_record(); });
    return static_cast<std::size_t>(after - shards.begin()) - 1;
  }

  EncodedPicture read(std::int64_t record) {
    const std::size_t number = shard_of(record);
    Shard& shard = shards[number];
    const bool was_open = shard.is_open();
    EncodedPicture picture = shard.read(record - shard.first_record());
    if (!was_open) open_shards.push_back(number);
    if (open_shards.size() > kMaxOpenShards) {
      shards[open_shards.front()].close();
      open_shards.pop_front();
    }
    return picture;
  }
};

Dataset::Dataset(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;
Dataset::~Dataset() = default;

Dataset Dataset::open(const std::filesystem::path& folder) {
  const std::string text = read_manifest_text(folder);
  auto self = std::make_unique<Implementation>();
  self->folder = folder;
  self->manifest = parse_manifest(text, "images", (folder / DatasetManifest::kFile).string());
  self->fingerprint = checksum_bytes(text);
  refuse_unlisted_shards(folder, self->manifest);
  std::int64_t first = 0;
  for (const ShardEntry& entry : self->manifest.shards) {
    self->shards.emplace_back(folder / entry.file, entry, first, std::ssize(self->manifest.classes));
    self->shards.back().check_place();
    first += entry.records;
  }
  return Dataset(std::move(self));
}

const std::filesystem::path& Dataset::folder() const { return implementation_->folder; }
const DatasetManifest& Dataset::manifest() const { return implementation_->manifest; }
const std::string& Dataset::fingerprint() const { return implementation_->fingerprint; }

std::vector<std::int32_t> Dataset::labels() const {
  const std::lock_guard lock(implementation_->mutex);
  std::vector<std::int32_t> labels;
  labels.reserve(static_cast<std::size_t>(records()));
  for (Shard& shard : implementation_->shards) {
    const bool was_open = shard.is_open();
    labels.insert(labels.end(), shard.labels().begin(), shard.labels().end());
    if (!was_open) shard.close();
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
  return fmt::format("{}, record {}", implementation_->shards[shard].path().string(), record);
}

std::vector<std::string> Dataset::verify(
    const std::function<void(std::int64_t, std::int64_t)>& progress) const {
  std::vector<std::string> damaged;
  std::int64_t done = 0;
  for (const Shard& shard : implementation_->shards) {
    if (const auto problem = shard.damage())
      damaged.push_back(fmt::format("{}: {}", shard.path().string(), *problem));
    if (progress) progress(++done, std::ssize(implementation_->shards));
  }
  return damaged;
}

std::string describe(const Dataset& dataset) {
  const DatasetManifest& manifest = dataset.manifest();
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
