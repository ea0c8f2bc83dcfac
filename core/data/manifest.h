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
  std::int64_t tokens = 0;  ///< in datasets of tokens
  std::int64_t bytes = 0;   ///< length of the file
  std::string checksum;     ///< XXH3-128 of the file
};

/// What dataset.json says, whatever the dataset holds. Written last, so a folder without it is no dataset.
struct DatasetManifest {
  static constexpr int kVersion = 1;
  static constexpr const char* kFile = "dataset.json";

  std::string kind;   ///< "images" or "tokens"
  std::string split;  ///< such as "train"
  std::int64_t records = 0;
  std::vector<ShardEntry> shards;  ///< in the order of the records
};

struct ImageManifest : DatasetManifest {
  int channels = 0;                           ///< 1 when all pictures are grey, else 3
  int width = 0, height = 0;                  ///< of every picture; 0 when they differ
  std::vector<std::string> classes;           ///< names by label; empty when there are none
  std::vector<double> pixel_mean, pixel_std;  ///< per channel over all pixels, on the scale 0 … 1
};

/// A record is a document; the documents make one stream of tokens, which the shards cut anywhere.
struct TokenManifest : DatasetManifest {
  std::int64_t tokens = 0;
  std::int64_t vocabulary = 0;     ///< all ids are below it
  std::int32_t document_end = -1;  ///< the last token of every document; -1: there is none
  /// Every document is a sequence of this length on its own, and windows are cut where they are; 0: text, to
  /// be cut anywhere.
  std::int64_t sequence_length = 0;
  bool marks_targets = false;  ///< the shards say which tokens are to be predicted; else all are
  /// Of the tokenizer whose files lie in the folder `tokenizer`; empty for ready-made tokens.
  std::string tokenizer_kind, tokenizer_fingerprint;
};

std::string to_json(const ImageManifest& manifest);
std::string to_json(const TokenManifest& manifest);

/// Parses and checks a manifest: every key typed, shard names plain and distinct, counts that add up. A
/// dataset of another kind is refused with the command that makes the right one.
/// @param where   the file, for messages
/// @throws Error (data)
ImageManifest parse_image_manifest(std::string_view json, const std::string& where);
TokenManifest parse_token_manifest(std::string_view json, const std::string& where);
/// "images" or "tokens", as the manifest says. @throws Error (data)
std::string parse_manifest_kind(std::string_view json, const std::string& where);

}  // namespace bireme
