#include "core/data/manifest.h"

#include "core/data/manifest_json.h"

namespace bireme {

using manifest_json::Fields;

std::string to_json(const ImageManifest& manifest) {
  manifest_json::Json json = manifest_json::common(manifest);
  json["channels"] = manifest.channels;
  if (manifest.width > 0) {
    json["width"] = manifest.width;
    json["height"] = manifest.height;
  }
  json["classes"] = manifest.classes;
  json["pixel_mean"] = manifest.pixel_mean;
  json["pixel_std"] = manifest.pixel_std;
  return manifest_json::finished(std::move(json), manifest);
}

std::string to_json(const TokenManifest& manifest) {
  manifest_json::Json json = manifest_json::common(manifest);
  json["tokens"] = manifest.tokens;
  json["vocabulary"] = manifest.vocabulary;
  if (manifest.document_end >= 0) json["document_end"] = manifest.document_end;
  if (manifest.sequence_length > 0) json["sequence_length"] = manifest.sequence_length;
  if (manifest.marks_targets) json["marks_targets"] = true;
  if (!manifest.tokenizer_kind.empty())
    json["tokenizer"] = {{"kind", manifest.tokenizer_kind}, {"fingerprint", manifest.tokenizer_fingerprint}};
  return manifest_json::finished(std::move(json), manifest);
}

std::string parse_manifest_kind(std::string_view text, const std::string& where) {
  const manifest_json::Json json = manifest_json::parse(text, where);
  return Fields(json, where).text("kind");
}

ImageManifest parse_image_manifest(std::string_view text, const std::string& where) {
  const manifest_json::Json json = manifest_json::parse(text, where);
  const Fields fields(json, where);
  ImageManifest manifest;
  manifest_json::parse_common(manifest, fields, "images", false, where);
  manifest.channels = static_cast<int>(fields.count("channels", 3));
  if (manifest.channels != 1 && manifest.channels != 3) fields.fail("`channels` is neither 1 nor 3");
  if (fields.has("width")) {
    manifest.width = static_cast<int>(fields.count("width", 1 << 20));
    manifest.height = static_cast<int>(fields.count("height", 1 << 20));
  }
  manifest.classes = fields.list<std::string>("classes", &manifest_json::Json::is_string);
  manifest.pixel_mean = fields.list<double>("pixel_mean", &manifest_json::Json::is_number);
  manifest.pixel_std = fields.list<double>("pixel_std", &manifest_json::Json::is_number);
  if (std::ssize(manifest.pixel_mean) != manifest.channels ||
      std::ssize(manifest.pixel_std) != manifest.channels)
    fields.fail(fmt::format("`pixel_mean` and `pixel_std` do not have {} entries", manifest.channels));
  return manifest;
}

TokenManifest parse_token_manifest(std::string_view text, const std::string& where) {
  const manifest_json::Json json = manifest_json::parse(text, where);
  const Fields fields(json, where);
  TokenManifest manifest;
  manifest_json::parse_common(manifest, fields, "tokens", true, where);
  manifest.tokens = fields.count("tokens");
  manifest_json::require_sum(fields, manifest, "tokens", &ShardEntry::tokens);
  if (manifest.records > manifest.tokens) fields.fail("has more documents than tokens");
  manifest.vocabulary = fields.count("vocabulary", std::int64_t{1} << 31);
  if (manifest.vocabulary == 0) fields.fail("`vocabulary` is 0");
  if (fields.has("document_end"))
    manifest.document_end = static_cast<std::int32_t>(fields.count("document_end", manifest.vocabulary - 1));
  if (fields.has("sequence_length")) {
    manifest.sequence_length = fields.count("sequence_length");
    if (manifest.sequence_length == 0 || manifest.tokens % manifest.sequence_length != 0 ||
        manifest.tokens / manifest.sequence_length != manifest.records)
      fields.fail(fmt::format("{} documents of {} tokens are not {} tokens", manifest.records,
                              manifest.sequence_length, manifest.tokens));
  }
  if (fields.has("marks_targets")) manifest.marks_targets = fields.truth("marks_targets");
  if (fields.has("tokenizer")) {
    const Fields tokenizer(fields.at("tokenizer"), where + ": tokenizer");
    manifest.tokenizer_kind = tokenizer.text("kind");
    manifest.tokenizer_fingerprint = tokenizer.text("fingerprint");
  }
  return manifest;
}

}  // namespace bireme
