#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace bireme {

/// One file of a dataset.
struct ShardEntry {
  std::string file;  ///< a plain name within the dataset's folder
  std::int64_t records = 0;
  std::int64_t bytes = 0;  ///< length of the file
  std::string checksum;    ///< XXH3-128 of the file
};

/// What dataset.json says. Written last, so a folder without it is no dataset.
struct DatasetManifest {
  static constexpr int kVersion = 1;
  static constexpr const char* kFile = "dataset.json";

  std::string kind;   ///< "images"
  std::string split;  ///< such as "train"
  std::int64_t records = 0;
  int channels = 0;                           ///< 1 when all pictures are grey, else 3
  int width = 0, height = 0;                  ///< of every picture; 0 when they differ
  std::vector<std::string> classes;           ///< names by label; empty when there are none
  std::vector<double> pixel_mean, pixel_std;  ///< per channel over all pixels, on the scale 0 … 1
  std::vector<ShardEntry> shards;             ///< in the order of the records
};

std::string to_json(const DatasetManifest& manifest);

/// Parses and checks a manifest: every key typed, shard names plain and distinct, counts that add up.
/// @param kind    what the caller can use; another kind is refused with the command that makes the right one
/// @param where   the file, for messages
/// @throws Error (data)
DatasetManifest parse_manifest(std::string_view json, const std::string& kind, const std::string& where);

}  // namespace bireme
