#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/data/shard_file.h"

// What datasets of every kind share when they are opened and read.
namespace bireme {

/// The text of dataset.json. @param command  that makes such datasets, for messages
/// @throws Error (data) when the folder holds none
std::string read_manifest_text(const std::filesystem::path& folder, const std::string& command);

/// A shard file that the manifest does not know is a sign that the manifest is an older one.
/// @throws Error (data) naming it
void refuse_unlisted_shards(const std::filesystem::path& folder, const DatasetManifest& manifest);

/// The shards of one dataset, in the order of what they hold. `S` has first(), the number of the first thing
/// in it, and file().
template <class S>
class ShardList {
 public:
  void add(S shard) { shards_.push_back(std::move(shard)); }
  std::vector<S>& shards() { return shards_; }
  const std::vector<S>& shards() const { return shards_; }

  /// Which shard holds a thing; it must be in one.
  std::size_t index_of(std::int64_t thing) const {
    const auto after = std::upper_bound(shards_.begin(), shards_.end(), thing,
                                        [](std::int64_t wanted, const S& s) { return wanted < s.first(); });
    return static_cast<std::size_t>(after - shards_.begin()) - 1;
  }

  /// Runs `use` on a shard, then closes the one that has been open longest when too many are.
  template <class Use>
  auto with(std::size_t index, const Use& use) {
    const bool was_open = shards_[index].file().is_open();
    auto result = use(shards_[index]);
    if (!was_open && shards_[index].file().is_open()) open_.push_back(index);
    if (open_.size() > kMostOpen) {
      shards_[open_.front()].file().close();
      open_.pop_front();
    }
    return result;
  }

  /// Compares the checksum of every shard. Returns one line for each that is damaged.
  std::vector<std::string> verify(const std::function<void(std::int64_t, std::int64_t)>& progress) const {
    std::vector<std::string> damaged;
    std::int64_t done = 0;
    for (const S& shard : shards_) {
      if (const auto problem = shard.file().damage())
        damaged.push_back(shard.file().path().string() + ": " + *problem);
      if (progress) progress(++done, std::ssize(shards_));
    }
    return damaged;
  }

 private:
  static constexpr std::size_t kMostOpen = 64;  // each holds a file descriptor and up to 1 MiB of chunks

  std::vector<S> shards_;
  std::deque<std::size_t> open_;  // oldest first
};

}  // namespace bireme
