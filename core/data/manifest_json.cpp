#include "core/data/manifest_json.h"

#include <set>

#include "core/base/files.h"
#include "core/base/json.h"

namespace bireme::manifest_json {

namespace {

constexpr const char* kFormat = "bireme dataset";

std::vector<ShardEntry> parse_shards(const Fields& fields, const std::string& where, bool has_tokens) {
  std::vector<ShardEntry> shards;
  std::set<std::string> files, checksums;
  if (!fields.at("shards").is_array()) fields.fail("`shards` is not a list");
  for (const Json& entry : fields.at("shards")) {
    const Fields shard(entry, fmt::format("{}: shard {}", where, shards.size()));
    shards.push_back({.file = shard.text("file"),
                      .records = shard.count("records"),
                      .tokens = has_tokens ? shard.count("tokens") : 0,
                      .bytes = shard.count("bytes"),
                      .checksum = shard.text("checksum")});
    const ShardEntry& added = shards.back();
    if (!is_plain_file_name(added.file)) shard.fail(fmt::format("`{}` is not a plain file name", added.file));
    if (!files.insert(added.file).second || !checksums.insert(added.checksum).second)
      shard.fail(fmt::format("{} is listed twice", added.file));
  }
  return shards;
}

}  // namespace

Json parse(std::string_view text, const std::string& where) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) throw Error(ErrorKind::data, "is not valid JSON", where, kRebuild);
  const Fields fields(json, where);
  if (fields.text("format") != kFormat) fields.fail("is not the manifest of a dataset");
  if (const std::int64_t version = fields.count("version"); version != DatasetManifest::kVersion)
    fields.fail(
        fmt::format("has format version {}, this program reads {}", version, DatasetManifest::kVersion));
  return json;
}

void require_sum(const Fields& fields, const DatasetManifest& manifest, const char* key,
                 std::int64_t ShardEntry::*number) {
  std::int64_t sum = 0;
  for (const ShardEntry& shard : manifest.shards)
    if (__builtin_add_overflow(sum, shard.*number, &sum))
      fields.fail(fmt::format("the {} of the shards overflow", key));
  if (const std::int64_t stated = fields.count(key); sum != stated || sum == 0)
    fields.fail(fmt::format("the shards have {} {} together, `{}` is {}", sum, key, key, stated));
}

void parse_common(DatasetManifest& manifest, const Fields& fields, const std::string& kind, bool has_tokens,
                  const std::string& where) {
  manifest.kind = fields.text("kind");
  manifest.split = fields.text("split");
  manifest.records = fields.count("records");
  if (manifest.kind != kind)
    throw Error(ErrorKind::data, fmt::format("the dataset holds {}, not {}", manifest.kind, kind), where,
                fmt::format("make the right one with `bireme prepare {}`", kind == "tokens" ? "text" : kind));
  manifest.shards = parse_shards(fields, where, has_tokens);
  require_sum(fields, manifest, "records", &ShardEntry::records);
}

Json common(const DatasetManifest& manifest) {
  return {{"format", kFormat},
          {"version", DatasetManifest::kVersion},
          {"kind", manifest.kind},
          {"split", manifest.split},
          {"records", manifest.records}};
}

std::string finished(Json json, const DatasetManifest& manifest) {
  json["shards"] = Json::array();
  for (const ShardEntry& shard : manifest.shards) {
    Json entry = {{"file", shard.file}, {"records", shard.records}};
    if (shard.tokens > 0) entry["tokens"] = shard.tokens;
    entry["bytes"] = shard.bytes;
    entry["checksum"] = shard.checksum;
    json["shards"].push_back(std::move(entry));
  }
  // File and class names come from file systems and need not be UTF-8.
  return json_text(json, 2) + "\n";
}

}  // namespace bireme::manifest_json
