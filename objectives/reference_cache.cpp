#include "objectives/reference_cache.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/base/sha256.h"
#include "core/data/shard_file.h"
#include "core/data/staged_dataset.h"
#include "core/io/safetensors.h"

namespace bireme {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kManifest = "reference.json";
constexpr const char *kSum = "sum", *kTokens = "tokens", *kMismatchedSum = "mismatched_sum",
                     *kMismatchedRecord = "mismatched_record";

/// Records of a shard: some tens of shards, so that little is lost and ranks share evenly. The size of the
/// dataset alone decides, so that a pass goes on with another number of ranks.
std::int64_t default_shard_size(std::int64_t records) {
  return std::clamp<std::int64_t>((records + 63) / 64, 64, 8192);
}

[[noreturn]] void refuse(const std::string& what, const fs::path& where) {
  throw Error(
      ErrorKind::data, what, where.string(),
      "make it anew with `bireme prepare reference --model M --data DATASET --force`, or name another "
      "folder");
}

/// @param stated  gives what the cache says under a name
void require_identity(const ReferenceIdentity& identity, const fs::path& where,
                      const std::function<std::string(const std::string& name)>& stated) {
  for (const auto& [name, wanted] : identity.fields())
    if (const std::string found = stated(name); found != wanted)
      refuse(fmt::format("the reference cache belongs to something else: its `{}` is {}, here it is {}", name,
                         found, wanted),
             where);
}

struct Layout {
  std::int64_t records, answers, shard_size;

  std::int64_t shards() const { return (records + shard_size - 1) / shard_size; }
  std::int64_t first(std::int64_t shard) const { return shard * shard_size; }
  std::int64_t last(std::int64_t shard) const { return std::min(records, (shard + 1) * shard_size); }
  static std::string name(std::int64_t shard) { return fmt::format("shard-{:05}.h5", shard); }
};

/// What a shard holds.
struct Part {
  std::vector<double> sums, mismatched_sums;
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> mismatched_records;
};

Part compute(const AnswerDataset& dataset, const Layout& layout, std::int64_t shard, bool has_mismatched,
             const ScoreReference& score, Communicator& ranks) {
  constexpr std::int64_t block = 32;  // records read at a time
  Part part;
  for (std::int64_t begin = layout.first(shard); begin < layout.last(shard); begin += block) {
    std::vector<AnswerRecord> records, others;
    for (std::int64_t i = begin; i < std::min(layout.last(shard), begin + block); ++i) {
      records.push_back(dataset.read(i));
      if (has_mismatched) others.push_back(read_mismatched(dataset, i));
    }
    for (const std::vector<AnswerScore>& record : score(records))
      for (const AnswerScore& answer : record) {
        part.sums.push_back(answer.log_probability);
        part.tokens.push_back(static_cast<std::int32_t>(answer.tokens));
      }
    if (has_mismatched)
      for (const std::vector<AnswerScore>& record : score(others))
        part.mismatched_sums.push_back(record.front().log_probability);
    ranks.beat();
  }
  for (std::int64_t i = layout.first(shard); has_mismatched && i < layout.last(shard); ++i)
    part.mismatched_records.push_back(record_before(i, layout.records));
  return part;
}

void write(const fs::path& folder, const Layout& layout, std::int64_t shard, const Part& part,
           const ReferenceIdentity& identity) {
  const std::int64_t count = layout.last(shard) - layout.first(shard);
  const std::shared_ptr<Memory> memory = make_host_memory();
  // Under its name it is whole: a pass that is interrupted while it writes leaves no shard behind.
  const fs::path staged = folder / (".writing-" + Layout::name(shard));
  {
    Hdf5Writer file(staged);
    file.write(kSum, tensor_of(*memory, part.sums, {count, layout.answers}));
    file.write(kTokens, tensor_of(*memory, part.tokens, {count, layout.answers}));
    if (identity.has_mismatched) {
      file.write(kMismatchedSum, tensor_of(*memory, part.mismatched_sums, {count}));
      file.write(kMismatchedRecord, tensor_of(*memory, part.mismatched_records, {count}));
    }
    file.attribute("", shard_names::records, count);
    file.attribute("", shard_names::first_record, layout.first(shard));
    for (const auto& [name, value] : identity.fields()) file.attribute("", name, value);
    file.close();
  }
  fs::rename(staged, folder / Layout::name(shard));
}

/// A shard that an earlier pass left. False when it is not there; one of another identity is refused.
bool is_there(const fs::path& folder, const Layout& layout, std::int64_t shard,
              const ReferenceIdentity& identity) {
  const fs::path path = folder / Layout::name(shard);
  if (!fs::exists(path)) return false;
  const Hdf5Reader file(path);
  require_identity(identity, path, [&](const std::string& name) {
    return file.has_attribute("", name) ? file.text("", name) : std::string("missing");
  });
  if (file.integer("", shard_names::first_record) != layout.first(shard) ||
      file.integer("", shard_names::records) != layout.last(shard) - layout.first(shard))
    refuse("the shard holds other records than this pass would write", path);
  return true;
}

void commit(const fs::path& folder, const Layout& layout, const ReferenceIdentity& identity) {
  Json json{{"format", "bireme reference"}};
  for (const auto& [name, value] : identity.fields()) json[name] = value;
  json["records"] = layout.records;
  json["answers"] = layout.answers;
  json["shard_size"] = layout.shard_size;
  json["shards"] = Json::array();
  for (std::int64_t shard = 0; shard < layout.shards(); ++shard) {
    const std::string name = Layout::name(shard);
    json["shards"].push_back({{"file", name}, {"checksum", checksum_file(folder / name)}});
  }
  write_file_atomically(folder / kManifest, json_text(json, 2) + "\n");
}

/// The manifest, checked against what is wanted of it.
nlohmann::json read_manifest(const fs::path& folder, const ReferenceIdentity& identity,
                             const AnswerDataset& dataset) {
  const fs::path path = folder / kManifest;
  const nlohmann::json json = try_parse_json(read_file(path, 64 << 20, ErrorKind::data));
  if (!json.is_object() || json.value("format", "") != "bireme reference")
    refuse("is no reference cache", path);
  require_identity(identity, path, [&](const std::string& name) {
    return json.contains(name) && json[name].is_string() ? json[name].get<std::string>() : "missing";
  });
  const auto is_count = [&](const char* name) {
    return json.contains(name) && json[name].is_number_unsigned();
  };
  if (!is_count("records") || !is_count("answers") || !is_count("shard_size") || json["shard_size"] == 0 ||
      json["records"] != dataset.size() || json["answers"] != dataset.manifest().answers() ||
      !json.contains("shards") || !json["shards"].is_array())
    refuse("the manifest of the cache is damaged", path);
  return json;
}

template <class T>
void append(std::vector<T>& all, const Hdf5Reader& file, const char* name, std::int64_t count,
            const fs::path& path) {
  const std::vector<T> values = read_shard_list<T>(file, name);
  if (std::ssize(values) != count)
    refuse(fmt::format("`{}` has {} numbers, not {}", name, values.size(), count), path);
  all.insert(all.end(), values.begin(), values.end());
}

}  // namespace

AnswerRecord read_mismatched(const AnswerDataset& dataset, std::int64_t number) {
  AnswerRecord record = dataset.read(number);
  record.answers = {dataset.read(record_before(number, dataset.size())).answers.front()};
  return record;
}

std::vector<std::pair<std::string, std::string>> ReferenceIdentity::fields() const {
  return {{"version", std::to_string(kVersion)},
          {"dataset_sha256", dataset},
          {"model_sha256", model},
          {"tokenizer", tokenizer},
          {"max_length", std::to_string(max_length)},
          {"truncation", truncation},
          {"precision", precision},
          {"mismatched", has_mismatched ? "dataset" : "none"}};
}

ReferenceIdentity identity_of(const AnswerDataset& dataset, const std::string& model_hash, DType precision,
                              bool has_mismatched) {
  const AnswerManifest& manifest = dataset.manifest();
  return {.dataset = dataset.manifest_sha256(),
          .model = model_hash,
          .tokenizer = manifest.tokenizer_kind + " " + manifest.tokenizer_fingerprint,
          .max_length = manifest.max_length,
          .truncation = to_string(manifest.truncation),
          .precision = precision == DType::bf16  ? "bf16"
                       : precision == DType::f64 ? "fp64"
                                                 : "fp32",
          .has_mismatched = has_mismatched};
}

std::string hash_of_model(const fs::path& folder) {
  constexpr std::int64_t piece = 4 << 20;
  const SafetensorsFolder source = SafetensorsFolder::open(folder);
  Sha256 hash;
  std::vector<std::byte> bytes;
  for (const std::string& name : source.names()) {
    const SafetensorsEntry& entry = source.entry(name);
    hash.update(fmt::format("{}\n{}\n{}\n", name, entry.stored_type, to_string(entry.shape)));
    for (std::int64_t begin = 0; begin < entry.end - entry.begin; begin += piece) {
      bytes.resize(static_cast<std::size_t>(std::min(piece, entry.end - entry.begin - begin)));
      source.read_bytes(name, begin, bytes);
      hash.update(bytes);
    }
  }
  return hash.text();
}

fs::path ReferenceCache::default_folder(const AnswerDataset& dataset, const ReferenceIdentity& identity) {
  std::string text;
  for (const auto& [name, value] : identity.fields())
    text.append(name).append("=").append(value).append("\n");
  return dataset.folder() / ("reference-" + sha256_text(text).substr(0, 16));
}

ReferenceCache ReferenceCache::prepare(const AnswerDataset& dataset, const ReferenceIdentity& identity,
                                       Communicator& ranks, const ScoreReference& score,
                                       const Options& options) {
  const fs::path folder = options.folder.empty() ? default_folder(dataset, identity) : options.folder;
  const bool leads = ranks.rank() == 0 && options.writes;
  if (leads && options.replace && fs::exists(folder)) {
    if (!fs::exists(folder / kManifest) && !fs::is_empty(folder) && !fs::exists(folder / Layout::name(0)))
      refuse("the folder holds other things than a reference cache", folder);
    fs::remove_all(folder);
  }
  if (leads) fs::create_directories(folder);
  ranks.barrier();
  if (!fs::exists(folder / kManifest)) {
    const Layout layout{
        .records = dataset.size(),
        .answers = dataset.manifest().answers(),
        .shard_size = options.shard_size > 0 ? options.shard_size : default_shard_size(dataset.size())};
    for (std::int64_t shard = ranks.rank(); shard < layout.shards(); shard += ranks.size()) {
      if (!is_there(folder, layout, shard, identity)) {
        const Part part = compute(dataset, layout, shard, identity.has_mismatched, score, ranks);
        if (options.writes) write(folder, layout, shard, part, identity);
      }
      if (options.progress)
        options.progress(std::min(shard + ranks.size(), layout.shards()), layout.shards());
    }
    ranks.barrier();
    if (leads) commit(folder, layout, identity);
  }
  ranks.barrier();
  return open(dataset, identity, folder);
}

ReferenceCache ReferenceCache::open(const AnswerDataset& dataset, const ReferenceIdentity& identity,
                                    const fs::path& given) {
  ReferenceCache cache;
  cache.folder_ = given.empty() ? default_folder(dataset, identity) : given;
  cache.answers_ = dataset.manifest().answers();
  if (!fs::exists(cache.folder_ / kManifest))
    throw Error(ErrorKind::data, "there is no whole reference cache", cache.folder_.string(),
                "make it with `bireme prepare reference --model M --data DATASET`");
  const nlohmann::json json = read_manifest(cache.folder_, identity, dataset);
  const Layout layout{.records = dataset.size(),
                      .answers = cache.answers_,
                      .shard_size = json["shard_size"].get<std::int64_t>()};
  if (std::ssize(json["shards"]) != layout.shards()) refuse("shards are missing", cache.folder_ / kManifest);
  for (std::int64_t shard = 0; shard < layout.shards(); ++shard) {
    const fs::path path = cache.folder_ / Layout::name(shard);
    const Json& entry = json["shards"][static_cast<std::size_t>(shard)];
    if (!fs::exists(path)) refuse("a shard is missing", path);
    if (const std::string actual = checksum_file(path, ErrorKind::data);
        !entry.is_object() || entry.value("checksum", "") != actual)
      refuse(fmt::format("checksum is {}, the manifest says otherwise", actual), path);
    const Hdf5Reader file(path);
    const std::int64_t count = layout.last(shard) - layout.first(shard);
    append(cache.sums_, file, kSum, count * layout.answers, path);
    if (!identity.has_mismatched) continue;
    append(cache.mismatched_sums_, file, kMismatchedSum, count, path);
    append(cache.mismatched_records_, file, kMismatchedRecord, count, path);
  }
  return cache;
}

}  // namespace bireme
