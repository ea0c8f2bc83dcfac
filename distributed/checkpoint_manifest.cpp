#include "distributed/checkpoint_manifest.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/io/safetensors.h"

namespace bireme {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr int kVersion = 1;
constexpr std::int64_t kMaxManifestBytes = std::int64_t{256} << 20;
constexpr const char* kRemedy = "resume from an older checkpoint, or copy this one again";

[[noreturn]] void refuse(const std::string& problem, const fs::path& place) {
  throw Error(ErrorKind::checkpoint, problem, place.string(), kRemedy);
}

/// The tensors whose bytes are not those that were written, for the message; empty when the header itself is
/// damaged.
std::string damaged_tensors(const fs::path& path, const std::map<std::string, std::string>& checksums) {
  std::string names;
  try {
    const SafetensorsFile file = SafetensorsFile::open(path);
    for (const auto& [name, checksum] : checksums) {
      if (!file.contains(name)) continue;
      std::vector<std::byte> bytes(static_cast<std::size_t>(file.entry(name).end - file.entry(name).begin));
      file.read_bytes(name, 0, bytes);
      if (checksum_bytes(bytes) != checksum) names += (names.empty() ? "" : ", ") + shown_name(name);
      if (names.size() > 500) return names + ", …";
    }
  } catch (const Error&) {
    return "the header";
  }
  return names.empty() ? "the header" : names;
}

}  // namespace

std::string CheckpointManifest::to_text() const {
  json list = json::object();
  for (const auto& [name, file] : files) {
    list[name] = {{"bytes", file.record.bytes}, {"xxh3_128", file.record.checksum}};
    if (!file.tensors.empty()) list[name]["tensors"] = file.tensors;
  }
  json manifest = {
      {"format", "bireme checkpoint"}, {"version", kVersion}, {"step", step}, {"files", std::move(list)}};
  manifest["checksum"] = checksum_bytes(json_text(manifest));
  return json_text(manifest, 1) + "\n";
}

CheckpointManifest CheckpointManifest::parse(const std::string& text, const fs::path& place) {
  CheckpointManifest result;
  try {
    json manifest = parse_json(text);
    const int version = manifest.at("version");
    const std::string checksum = manifest.at("checksum");
    manifest.erase("checksum");
    if (const std::string actual = checksum_bytes(json_text(manifest)); actual != checksum) {
      refuse(fmt::format("manifest has checksum {}, it says {}", actual, checksum), place);
    }
    if (version != kVersion) {
      throw Error(ErrorKind::checkpoint,
                  fmt::format("checkpoint has format {}, this program reads {}", version, kVersion),
                  place.string(), "use the version of bireme that wrote it");
    }
    result.step = manifest.at("step");
    for (const auto& [name, entry] : manifest.at("files").items()) {
      if (!is_plain_file_name(name))
        refuse(fmt::format("manifest names {}, which is no plain file name", shown_name(name)), place);
      File& file = result.files[name];
      file.record = {.bytes = entry.at("bytes"), .checksum = entry.at("xxh3_128")};
      if (entry.contains("tensors")) entry.at("tensors").get_to(file.tensors);
    }
  } catch (const json::exception& error) {
    refuse(fmt::format("manifest is damaged ({})", error.what()), place);
  }
  return result;
}

CheckpointManifest CheckpointManifest::read(const fs::path& folder) {
  const fs::path path = folder / kFileName;
  if (!fs::exists(path)) refuse("not a whole checkpoint: it has no manifest.json", folder);
  return parse(read_file(path, kMaxManifestBytes), path);
}

void CheckpointManifest::check_sizes(const fs::path& folder) const {
  for (const auto& [name, file] : files) {
    std::error_code error;
    const fs::path path = folder / name;
    if (!fs::is_regular_file(fs::symlink_status(path, error)))
      refuse("file of the checkpoint is missing", path);
    const auto bytes = static_cast<std::int64_t>(fs::file_size(path));
    if (bytes != file.record.bytes)
      refuse(fmt::format("file has {} bytes, the manifest says {}", bytes, file.record.bytes), path);
  }
}

void CheckpointManifest::check_content(const fs::path& folder, const std::string& name) const {
  const File& file = files.at(name);
  const std::string actual = checksum_file(folder / name);
  if (actual == file.record.checksum) return;
  const std::string part =
      file.tensors.empty() ? "" : fmt::format(" (damaged: {})", damaged_tensors(folder / name, file.tensors));
  refuse(fmt::format("checksum is {}, the manifest says {}{}", actual, file.record.checksum, part),
         folder / name);
}

}  // namespace bireme
