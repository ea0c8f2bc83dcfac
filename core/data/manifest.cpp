#include "core/data/manifest.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"

namespace bireme {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "bireme dataset";
constexpr const char* kRebuild = "copy the dataset again, or rebuild it with `bireme prepare`";

/// Takes typed values out of one JSON object and names the key that is missing or wrong.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("is not a JSON object");
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::data, what, where_, kRebuild);
  }

  bool has(const char* key) const { return object_.contains(key); }
  const Json& at(const char* key) const {
    if (!has(key)) fail(fmt::format("`{}` is missing", key));
    return object_.at(key);
  }
  std::string text(const char* key) const {
    if (!at(key).is_string()) fail(fmt::format("`{}` is not a string", key));
    return at(key).get<std::string>();
  }
  std::int64_t count(const char* key, std::int64_t largest = std::int64_t{1} << 53) const {
    const Json& value = at(key);
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > static_cast<std::uint64_t>(largest))
      fail(fmt::format("`{}` is not a count of at most {}", key, largest));
    return value.get<std::int64_t>();
  }
  template <class T>
  std::vector<T> list(const char* key, bool (Json::*is_right)() const noexcept) const {
    std::vector<T> values;
    if (!at(key).is_array()) fail(fmt::format("`{}` is not a list", key));
    for (const Json& value : at(key)) {
      if (!(value.*is_right)()) fail(fmt::format("`{}` holds {}", key, value.dump().substr(0, 40)));
      values.push_back(value.get<T>());
    }
    return values;
  }

 private:
  const Json& object_;
  std::string where_;
};

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

/// Begins to read a manifest of any kind.
Json parse_json(std::string_view text, const std::string& where) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) throw Error(ErrorKind::data, "is not valid JSON", where, kRebuild);
  const Fields fields(json, where);
  if (fields.text("format") != kFormat) fields.fail("is not the manifest of a dataset");
  if (const std::int64_t version = fields.count("version"); version != DatasetManifest::kVersion)
    fields.fail(
        fmt::format("has format version {}, this program reads {}", version, DatasetManifest::kVersion));
  return json;
}

/// The sum of a number over the shards, which the manifest states too.
void require_sum(const Fields& fields, const DatasetManifest& manifest, const char* key,
                 std::int64_t ShardEntry::*number) {
  std::int64_t sum = 0;
  for (const ShardEntry& shard : manifest.shards)
    if (__builtin_add_overflow(sum, shard.*number, &sum))
      fields.fail(fmt::format("the {} of the shards overflow", key));
  if (const std::int64_t stated = fields.count(key); sum != stated || sum == 0)
    fields.fail(fmt::format("the shards have {} {} together, `{}` is {}", sum, key, key, stated));
}

/// What all kinds have.
void parse_common(DatasetManifest& manifest, const Fields& fields, const std::string& kind,
                  const std::string& where) {
  manifest.kind = fields.text("kind");
  manifest.split = fields.text("split");
  manifest.records = fields.count("records");
  if (manifest.kind != kind)
    throw Error(ErrorKind::data, fmt::format("the dataset holds {}, not {}", manifest.kind, kind), where,
                fmt::format("make the right one with `bireme prepare {}`", kind == "tokens" ? "text" : kind));
  manifest.shards = parse_shards(fields, where, kind == "tokens");
  require_sum(fields, manifest, "records", &ShardEntry::records);
}

Json common_json(const DatasetManifest& manifest) {
  return {{"format", kFormat},
          {"version", DatasetManifest::kVersion},
          {"kind", manifest.kind},
          {"split", manifest.split},
          {"records", manifest.records}};
}

std::string finished_json(Json json, const DatasetManifest& manifest) {
  json["shards"] = Json::array();
  for (const ShardEntry& shard : manifest.shards) {
    Json entry = {{"file", shard.file}, {"records", shard.records}};
    if (shard.tokens > 0) entry["tokens"] = shard.tokens;
    entry["bytes"] = shard.bytes;
    entry["checksum"] = shard.checksum;
    json["shards"].push_back(std::move(entry));
  }
  // File and class names come from file systems and need not be UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string to_json(const ImageManifest& manifest) {
  Json json = common_json(manifest);
  json["channels"] = manifest.channels;
  if (manifest.width > 0) {
    json["width"] = manifest.width;
    json["height"] = manifest.height;
  }
  json["classes"] = manifest.classes;
  json["pixel_mean"] = manifest.pixel_mean;
  json["pixel_std"] = manifest.pixel_std;
  return finished_json(std::move(json), manifest);
}

std::string to_json(const TokenManifest& manifest) {
  Json json = common_json(manifest);
  json["tokens"] = manifest.tokens;
  json["vocabulary"] = manifest.vocabulary;
  if (manifest.document_end >= 0) json["document_end"] = manifest.document_end;
  if (!manifest.tokenizer_kind.empty())
    json["tokenizer"] = {{"kind", manifest.tokenizer_kind}, {"fingerprint", manifest.tokenizer_fingerprint}};
  return finished_json(std::move(json), manifest);
}

std::string parse_manifest_kind(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  return Fields(json, where).text("kind");
}

ImageManifest parse_image_manifest(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  const Fields fields(json, where);
  ImageManifest manifest;
  parse_common(manifest, fields, "images", where);
  manifest.channels = static_cast<int>(fields.count("channels", 3));
  if (manifest.channels != 1 && manifest.channels != 3) fields.fail("`channels` is neither 1 nor 3");
  if (fields.has("width")) {
    manifest.width = static_cast<int>(fields.count("width", 1 << 20));
    manifest.height = static_cast<int>(fields.count("height", 1 << 20));
  }
  manifest.classes = fields.list<std::string>("classes", &Json::is_string);
  manifest.pixel_mean = fields.list<double>("pixel_mean", &Json::is_number);
  manifest.pixel_std = fields.list<double>("pixel_std", &Json::is_number);
  if (std::ssize(manifest.pixel_mean) != manifest.channels ||
      std::ssize(manifest.pixel_std) != manifest.channels)
    fields.fail(fmt::format("`pixel_mean` and `pixel_std` do not have {} entries", manifest.channels));
  return manifest;
}

TokenManifest parse_token_manifest(std::string_view text, const std::string& where) {
  const Json json = parse_json(text, where);
  const Fields fields(json, where);
  TokenManifest manifest;
  parse_common(manifest, fields, "tokens", where);
  manifest.tokens = fields.count("tokens");
  require_sum(fields, manifest, "tokens", &ShardEntry::tokens);
  if (manifest.records > manifest.tokens) fields.fail("has more documents than tokens");
  manifest.vocabulary = fields.count("vocabulary", std::int64_t{1} << 31);
  if (manifest.vocabulary == 0) fields.fail("`vocabulary` is 0");
  if (fields.has("document_end"))
    manifest.document_end = static_cast<std::int32_t>(fields.count("document_end", manifest.vocabulary - 1));
  if (fields.has("tokenizer")) {
    const Fields tokenizer(fields.at("tokenizer"), where + ": tokenizer");
    manifest.tokenizer_kind = tokenizer.text("kind");
    manifest.tokenizer_fingerprint = tokenizer.text("fingerprint");
  }
  return manifest;
}

}  // namespace bireme
