#include "core/data/dataset_folder.h"

#include <set>

#include "core/base/error.h"
#include "core/base/files.h"

namespace bireme {

namespace {

constexpr std::int64_t kMaxManifestBytes = 64 << 20;

}  // namespace

std::string read_manifest_text(const std::filesystem::path& folder, const std::string& command) {
  const std::filesystem::path path = folder / DatasetManifest::kFile;
  if (!std::filesystem::exists(path))
    throw Error(
        ErrorKind::data,
        std::filesystem::exists(folder) ? "the folder holds no dataset.json" : "there is no such dataset",
        folder.string(), "give a folder made by `" + command + "`");
  return read_file(path, kMaxManifestBytes, ErrorKind::data);
}

void refuse_unlisted_shards(const std::filesystem::path& folder, const DatasetManifest& manifest) {
  std::set<std::string> listed;
  for (const ShardEntry& shard : manifest.shards) listed.insert(shard.file);
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("shard-") && name.ends_with(".h5") && !listed.contains(name))
      throw Error(ErrorKind::data, "the shard is not listed in dataset.json", entry.path().string(),
                  "copy dataset.json again, or rebuild the dataset with `bireme prepare`");
  }
}

}  // namespace bireme
